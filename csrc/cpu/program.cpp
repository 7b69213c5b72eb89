// Making, running and freeing programs (program.h). A program is known by a number, never by an address, and holds its
// tensors: whatever number and images are given, a run reads and writes living tensors that its operators have checked.
#include "program.h"

#include <pthread.h>

#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <unordered_map>

namespace effnet_fast {

using torch::headeronly::ScalarType;

Decoders& decoders() {
  static Decoders all;
  return all;
}

int64_t Words::next() {
  if (at_ == end_) throw std::invalid_argument("the description has too few words");
  return from_.words[at_++];
}

const std::string& Words::name() {
  const int64_t index = next();
  if (index < 0 || index >= static_cast<int64_t>(from_.names.size())) {
    throw std::invalid_argument("the description has no name " + std::to_string(index));
  }
  return from_.names[index];
}

const Tensor& Words::tensor(int64_t index) {
  if (index < 0 || index >= static_cast<int64_t>(from_.tensors.size())) {
    throw std::invalid_argument("the description has no tensor " + std::to_string(index));
  }
  return from_.tensors[index];
}

void Words::finish() const {
  if (at_ != end_) throw std::invalid_argument("the description has too many words");
}

Argument<bool>::Argument(Words& words) {
  const int64_t word = words.next();
  if (word != 0 && word != 1) throw std::invalid_argument("a bool is 0 or 1, got " + std::to_string(word));
  value = word == 1;
}

Argument<ScalarType>::Argument(Words& words) {
  const std::string& name = words.name();
  if (name == "float32") {
    value = ScalarType::Float;
  } else if (name == "float16") {
    value = ScalarType::Half;
  } else if (name == "bfloat16") {
    value = ScalarType::BFloat16;
  } else {
    throw std::invalid_argument("dtype must be float32, float16 or bfloat16, got '" + name + "'");
  }
}

Argument<OptionalTensor>::Argument(Words& words) {
  const int64_t index = words.next();
  if (index != Description::kNone) value = words.tensor(index);
}

Argument<Tensor>::Argument(Words& words) {
  const int64_t index = words.next();
  if (index != Description::kImages) {
    value = words.tensor(index);
    return;
  }
  begin = words.next();
  end = words.next();
  if (begin < 0 || end < begin) {
    throw std::invalid_argument("a program reads images begin..end, got " + std::to_string(begin) + ".." +
                                std::to_string(end));
  }
}

Tensor Argument<Tensor>::on(const Tensor& images) const {
  if (value) return *value;
  STD_TORCH_CHECK(images.dim() > 0 && end <= images.size(0), "the program reads images ", begin, "..", end,
                  " of a batch that does not have as many");
  if (begin == 0 && end == images.size(0)) return images;
  Tensor whole = images;
  return torch::stable::narrow(whole, 0, begin, end - begin);
}

namespace {

struct Call {
  std::string name;
  Step run;
};

using Program = std::vector<Call>;

std::string in(const std::string& name, const std::exception& error) {
  return "effnet_fast::" + name + ": " + error.what();
}

// Adds the operator's name to what `body` throws, whose type decides which exception Python raises.
template <class F>
void named(const std::string& name, const F& body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(in(name, error));
  } catch (const std::exception& error) {
    throw std::runtime_error(in(name, error));
  }
}

// Programs by number. Numbers are never used again, so that one that is kept too long names nothing.
class Registry {
 public:
  int64_t add(Program program) {
    auto held = std::make_shared<const Program>(std::move(program));
    const std::lock_guard<std::mutex> lock(mutex_);
    programs_.emplace(++last_, std::move(held));
    return last_;
  }

  // Alive for as long as the caller holds it, whoever frees it meanwhile.
  std::shared_ptr<const Program> find(int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = programs_.find(number);
    if (found == programs_.end()) {
      throw std::invalid_argument("there is no program " + std::to_string(number));
    }
    return found->second;
  }

  void remove(int64_t number) {
    // To free a tensor may take Python's lock, so it happens after ours is released.
    std::shared_ptr<const Program> removed = find(number);
    const std::lock_guard<std::mutex> lock(mutex_);
    programs_.erase(number);
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
  std::unordered_map<int64_t, std::shared_ptr<const Program>> programs_;
  int64_t last_ = 0;
};

// Never destroyed: tensors that are left must not be freed after the interpreter.
Registry& registry() {
  static Registry& all = *[] {
    auto* made = new Registry;
    // A child must not inherit the lock from a thread that does not exist there.
    pthread_atfork([] { registry().lock(); }, [] { registry().unlock(); }, [] { registry().unlock(); });
    return made;
  }();
  return all;
}

int64_t make(std::vector<std::string> names, std::vector<int64_t> words, std::vector<Tensor> tensors) {
  const Description description{names, words, tensors};
  Program program;
  for (size_t at = 0; at < words.size();) {
    Words head(description, at, words.size());
    const std::string& name = head.name();
    const int64_t count = head.next();
    at += 2;
    if (count < 0 || count > static_cast<int64_t>(words.size() - at)) {
      throw std::invalid_argument("the description ends within call " + std::to_string(program.size()));
    }
    const auto decoder = decoders().find(name);
    if (decoder == decoders().end()) {
      throw std::invalid_argument("a program has no operator '" + name + "'");
    }
    named(name, [&] {
      Words call(description, at, at + count);
      program.push_back({name, decoder->second(call)});
      call.finish();
    });
    at += count;
  }
  return registry().add(std::move(program));
}

void run(int64_t program, Tensor images) {
  const std::shared_ptr<const Program> found = registry().find(program);
  with_team([&] {
    for (const Call& call : *found) named(call.name, [&] { call.run(images); });
  });
}

void release(int64_t program) { registry().remove(program); }

std::string operators() {
  std::string names;
  for (const auto& [name, decoder] : decoders()) names += (names.empty() ? "" : ",") + name;
  return names;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(effnet_fast, m) {
  m.def("cpu_program_operators() -> str");
  m.def("cpu_program(str[] names, int[] words, Tensor[] tensors) -> int");
  m.def("cpu_program_run(int program, Tensor images) -> ()");
  m.def("cpu_program_free(int program) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CompositeExplicitAutograd, m) {
  m.impl("cpu_program_operators", TORCH_BOX(&operators));
  m.impl("cpu_program", TORCH_BOX(&make));
  m.impl("cpu_program_free", TORCH_BOX(&release));
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) { m.impl("cpu_program_run", TORCH_BOX(&run)); }

}  // namespace effnet_fast
