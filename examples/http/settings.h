// The command line of the server.
#ifndef EXAMPLES_HTTP_SETTINGS_H_
#define EXAMPLES_HTTP_SETTINGS_H_

#include <getopt.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace settings {

struct Settings {
  std::string model, target = "session_group:2";
  int port = 8080, threads = 16, drain = 5;
};

constexpr char kUsage[] =
    "usage: server --model SAVED_MODEL [--target session_group:2] [--port 8080, 0: any]\n"
    "              [--threads 16: requests at a time] [--drain 5: seconds after SIGTERM]\n";

// Ends the program where the arguments are wrong, or ask for help.
inline Settings Parse(int argc, char** argv) {
  const option options[] = {{"model", 1, nullptr, 'm'},   {"target", 1, nullptr, 't'},
                            {"port", 1, nullptr, 'p'},    {"drain", 1, nullptr, 'd'},
                            {"threads", 1, nullptr, 'n'}, {"help", 0, nullptr, 'h'},
                            {nullptr, 0, nullptr, 0}};
  Settings settings;
  for (int c; (c = getopt_long(argc, argv, "", options, nullptr)) != -1;) {
    if (c == 'm') settings.model = optarg;
    if (c == 't') settings.target = optarg;
    if (c == 'p') settings.port = std::atoi(optarg);
    if (c == 'd') settings.drain = std::atoi(optarg);
    if (c == 'n') settings.threads = std::atoi(optarg);
    if (c == 'h') std::exit(std::fputs(kUsage, stdout) < 0);
    if (c == '?') std::exit((std::fputs(kUsage, stderr), 2));
  }
  if (settings.model.empty() || optind < argc || settings.threads < 1) {
    std::exit((std::fputs(kUsage, stderr), 2));
  }
  return settings;
}

}  // namespace settings

#endif  // EXAMPLES_HTTP_SETTINGS_H_
