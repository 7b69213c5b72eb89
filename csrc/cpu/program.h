// Programs: calls of operators whose arguments are decoded once, to be run one after another by one dispatcher call.
//
// For each call the dispatcher boxes every argument, allocates for strings, lists and tensors, and takes them apart
// again: 3 us for the 13 arguments of a block, which is as much as some blocks of a small network compute. A program
// keeps the decoded arguments and calls the very function that the dispatcher calls, whose checks run every time.
#pragma once

#include <functional>
#include <map>
#include <tuple>

#include "binding.h"

namespace effnet_fast {

// What a program is made of. A call is a name, the number of its words, and the words, in the order of the arguments:
//   int, bool        the value
//   int[4]           four values
//   str, ScalarType  an index into names ("float32" is a ScalarType)
//   Tensor           an index into tensors; or kImages, begin, end: these images of the batch that the program runs on
//   Tensor?          an index into tensors, or kNone
// effnet_fast/inference/native_program.py writes them.
struct Description {
  static constexpr int64_t kNone = -1, kImages = -2;
  const std::vector<std::string>& names;
  const std::vector<int64_t>& words;
  const std::vector<Tensor>& tensors;
};

// Reads the words of one call, front to back. Throws std::invalid_argument for what is not there.
class Words {
 public:
  Words(const Description& from, size_t begin, size_t end) : from_(from), at_(begin), end_(end) {}
  int64_t next();
  const std::string& name();
  const Tensor& tensor(int64_t index);
  void finish() const;  // nothing may be left

 private:
  const Description& from_;
  size_t at_, end_;
};

// One argument, kept until the program is run, and `on(images)`: its value when it runs on `images`.
template <class T>
struct Argument;

template <>
struct Argument<int64_t> {
  explicit Argument(Words& words) : value(words.next()) {}
  int64_t on(const Tensor&) const { return value; }
  int64_t value;
};

template <>
struct Argument<bool> {
  explicit Argument(Words& words);
  bool on(const Tensor&) const { return value; }
  bool value;
};

template <>
struct Argument<std::string> {
  explicit Argument(Words& words) : value(words.name()) {}
  const std::string& on(const Tensor&) const { return value; }
  std::string value;
};

template <>
struct Argument<Padding> {
  explicit Argument(Words& words) : value{words.next(), words.next(), words.next(), words.next()} {}
  const Padding& on(const Tensor&) const { return value; }
  Padding value;
};

template <>
struct Argument<torch::headeronly::ScalarType> {
  explicit Argument(Words& words);
  torch::headeronly::ScalarType on(const Tensor&) const { return value; }
  torch::headeronly::ScalarType value;
};

template <>
struct Argument<OptionalTensor> {
  explicit Argument(Words& words);
  const OptionalTensor& on(const Tensor&) const { return value; }
  OptionalTensor value;
};

template <>
struct Argument<Tensor> {
  explicit Argument(Words& words);
  Tensor on(const Tensor& images) const;
  OptionalTensor value;  // without one: images begin..end
  int64_t begin = 0, end = 0;
};

using Step = std::function<void(const Tensor& images)>;

template <class... Parameters>
Step decode(void (*function)(Parameters...), Words& words) {
  // Braces: the words are read in the order of the parameters.
  std::tuple<Argument<Parameters>...> arguments{Argument<Parameters>(words)...};
  return [function, arguments = std::move(arguments)](const Tensor& images) {
    std::apply([&](const auto&... argument) { function(argument.on(images)...); }, arguments);
  };
}

// {name of an operator: what makes a step of its words}.
using Decoders = std::map<std::string, Step (*)(Words&), std::less<>>;
Decoders& decoders();

// Registers `Function` as the dispatcher's kernel of operator `name` and as what a program runs under that name.
template <auto Function>
void implement(torch::stable::detail::StableLibrary& library, const char* name) {
  library.impl(name, TORCH_BOX(Function));
  decoders()[name] = [](Words& words) { return decode(Function, words); };
}

}  // namespace effnet_fast
