// Serves a SavedModel over HTTP with a session group: predictions, health, Prometheus metrics.
//
//     server --model models/build/strings --target session_group:4 --port 8080
//     curl -d '{"inputs": {"text": ["to be or not to be"]}}' localhost:8080/predict
//
// SIGTERM makes /healthz fail first, so that clients go elsewhere, and ends the server --drain
// seconds later, with all requests answered.
#include <httplib.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "predict.h"
#include "session_group.h"
#include "settings.h"

namespace {

using predict::Json;

void Reply(httplib::Response& response, int status, const Json& body) {
  response.status = status;
  response.set_content(body.dump(), "application/json");
}

void Post(const tensorflow::SavedModelBundle& model, const httplib::Request& request,
          httplib::Response& response) {
  try {
    Reply(response, 200, predict::Predict(model, Json::parse(request.body)));
  } catch (const predict::Failed& e) {
    const bool invalid = e.code == absl::StatusCode::kInvalidArgument;
    const bool full = e.code == absl::StatusCode::kResourceExhausted;
    Reply(response, invalid ? 400 : full ? 429 : 500, {{"error", e.what()}});
  } catch (const predict::Invalid& e) {
    Reply(response, 400, {{"error", e.what()}});
  } catch (const Json::exception& e) {
    Reply(response, 400, {{"error", e.what()}});
  }
}

void Metrics(httplib::Response& response) {
  const std::unique_ptr<TF_Status, void (*)(TF_Status*)> status(TF_NewStatus(), TF_DeleteStatus);
  const std::unique_ptr<TF_Buffer, void (*)(TF_Buffer*)> text(TF_NewBuffer(), TF_DeleteBuffer);
  SessionGroup_AllMetricsText(text.get(), status.get());
  if (TF_GetCode(status.get()) != TF_OK) {
    return Reply(response, 500, {{"error", TF_Message(status.get())}});
  }
  response.set_content(static_cast<const char*>(text->data), text->length, "text/plain");
}

}  // namespace

int main(int argc, char** argv) {
  const settings::Settings settings = settings::Parse(argc, argv);
  // Before any thread is made, which all inherit it: the signal is waited for, not handled.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  // The only line that knows of a group: an empty target makes one session.
  tensorflow::SessionOptions options;
  options.target = settings.target;
  tensorflow::SavedModelBundle model;
  const absl::Status loaded =
      tensorflow::LoadSavedModel(options, {}, settings.model, {"serve"}, &model);
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.ToString().c_str());
    return 1;
  }

  std::atomic<bool> draining{false};
  httplib::Server server;
  server.new_task_queue = [&] { return new httplib::ThreadPool(settings.threads); };
  server.set_tcp_nodelay(true).set_payload_max_length(64 << 20).set_keep_alive_max_count(1 << 20);
  server.Post("/predict", [&](auto& request, auto& response) { Post(model, request, response); });
  server.Get("/metrics", [](auto&, auto& response) { Metrics(response); });
  server.Get("/healthz", [&](auto&, auto& response) {
    Reply(response, draining ? 503 : 200, {{"status", draining ? "draining" : "serving"}});
  });
  server.set_error_handler([](auto&, auto& response) {
    if (response.body.empty()) Reply(response, response.status, {{"error", "no such page"}});
  });
  int listening = -1;
  server.set_socket_options([&](socket_t socket) {
    const int yes = 1;
    setsockopt(listening = socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  const int port = settings.port == 0 ? server.bind_to_any_port("127.0.0.1")
                   : server.bind_to_port("127.0.0.1", settings.port) ? settings.port
                                                                     : -1;
  if (port < 0) {
    std::fprintf(stderr, "can't listen on port %d\n", settings.port);
    return 1;
  }
  listen(listening, SOMAXCONN);  // httplib lets 5 clients wait, which more that come at once exceed
  std::thread stopper([&] {
    int signal;
    sigwait(&signals, &signal);
    draining = true;
    std::this_thread::sleep_for(std::chrono::seconds(settings.drain));
    server.stop();
  });
  std::printf("serving on http://127.0.0.1:%d\n", port);
  std::fflush(stdout);
  server.listen_after_bind();
  stopper.join();
  return 0;
}
