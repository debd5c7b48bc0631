#include "compile/graph_capture.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/common_runtime/executor.h"
#include "tensorflow/core/common_runtime/executor_factory.h"
#include "tensorflow/core/common_runtime/graph_constructor.h"
#include "tensorflow/core/common_runtime/local_executor_params.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/op.h"

namespace session_group {
namespace {

// The session gets this instead of an executor, and never runs it.
class NoExecutor final : public tensorflow::Executor {
  void RunAsyncInternal(const Args&, DoneCallback done) override {
    done(absl::FailedPreconditionError("this session only compiles graphs"));
  }
};

// Its address identifies this copy of the library.
const char executor_type_key = 0;

class CaptureFactory final : public tensorflow::ExecutorFactory {
  absl::Status NewExecutor(const tensorflow::LocalExecutorParams& params,
                           const tensorflow::Graph& graph,
                           std::unique_ptr<tensorflow::Executor>* executor) override {
    GraphCapture* capture = GraphCapture::Current();
    if (capture == nullptr) {
      return absl::InvalidArgumentError(
          "only session groups can use an executor_type that begins with SESSION_GROUP: set "
          "another one in ConfigProto.experimental");
    }
    capture->Add(graph, params.device);
    *executor = std::make_unique<NoExecutor>();
    return absl::OkStatus();
  }
};

}  // namespace

thread_local GraphCapture* GraphCapture::current_ = nullptr;

void GraphCapture::Prepare(tensorflow::SessionOptions* options) {
  // TensorFlow keeps factories until the process ends. Each loaded copy of this library needs a
  // factory of its own, because it has captures of its own, so the name includes an address.
  static const std::string* const type = [] {
    auto* name = new std::string(absl::StrCat(
        "SESSION_GROUP_CAPTURE_", absl::Hex(reinterpret_cast<uintptr_t>(&executor_type_key))));
    tensorflow::ExecutorFactory::Register(*name, new CaptureFactory);
    return name;
  }();
  options->config.mutable_experimental()->set_executor_type(*type);
}

void GraphCapture::Add(const tensorflow::Graph& graph, const tensorflow::Device* device) {
  devices_.push_back(device);
  // The graph's library may only be a view of another library, its default registry, which is freed
  // after the compilation. The copy depends on nothing but the registered operations.
  tensorflow::FunctionLibraryDefinition functions(tensorflow::OpRegistry::Global(),
                                                  tensorflow::FunctionDefLibrary());
  for (const tensorflow::OpRegistryInterface* registry = &graph.flib_def(); registry != nullptr;) {
    const auto* library = dynamic_cast<const tensorflow::FunctionLibraryDefinition*>(registry);
    if (library == nullptr) break;
    functions.AddLibrary(library->ToProto()).IgnoreError();
    registry = library->default_registry();
  }
  graphs_.push_back(std::make_unique<tensorflow::Graph>(functions.ReachableDefinitions(graph)));
  tensorflow::CopyGraph(graph, graphs_.back().get());
}

}  // namespace session_group
