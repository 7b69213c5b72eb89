// Teams of threads (team.h) without PyTorch, meant for ThreadSanitizer: every element of every loop once, whoever comes
// early, late or never; and what a part throws. Prints as harness.cpp does.
#include "../../csrc/cpu/team.h"

#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace effnet_fast {
namespace {

int passed = 0, failed = 0;

void expect(const std::string& what, bool holds) {
  (holds ? passed : failed)++;
  if (!holds) std::printf("FAILED %s\n", what.c_str());
}

template <class F>
void run(Team& team, int64_t n, const F& f) {
  team.run(
      n, [](int64_t begin, int64_t end, void* f) { (*static_cast<const F*>(f))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// `loops` loops that each add what the loop before wrote (plain memory: a race would be seen), led by this thread.
void count_up(const std::string& what, int64_t members, int64_t servers, int64_t loops, std::chrono::microseconds late,
              std::chrono::microseconds between) {
  Team team(members);
  std::vector<std::thread> threads;
  for (int64_t member = 1; member <= servers; member++) {
    threads.emplace_back([&team, member, late] {
      std::this_thread::sleep_for(late);
      team.serve(member);
    });
  }
  const int64_t n = 37;
  std::vector<int64_t> from(n, 0), to(n, 0);
  for (int64_t loop = 0; loop < loops; loop++) {
    run(team, n, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) to[i] = from[(i + 11) % n] + 1;
    });
    std::swap(from, to);
    if (between.count()) std::this_thread::sleep_for(between);
  }
  team.dismiss();
  for (std::thread& thread : threads) thread.join();
  bool all = true;
  for (int64_t value : from) all = all && value == loops;
  expect(what, all);
}

void loops_of_any_size() {
  Team team(4);
  std::vector<std::thread> threads;
  for (int64_t member = 1; member < 4; member++) threads.emplace_back([&team, member] { team.serve(member); });
  for (int64_t n : {0, 1, 2, 3, 4, 5, 1000}) {
    std::vector<int> counts(n + 1, 0);
    run(team, n, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) counts[i]++;
    });
    bool once = counts[n] == 0;
    for (int64_t i = 0; i < n; i++) once = once && counts[i] == 1;
    expect("each of " + std::to_string(n) + " once", once);
  }
  team.dismiss();
  for (std::thread& thread : threads) thread.join();
}

void what_a_part_throws(int64_t servers) {
  Team team(3);
  std::vector<std::thread> threads;
  for (int64_t member = 1; member <= servers; member++) {
    threads.emplace_back([&team, member] { team.serve(member); });
  }
  for (int64_t bad = 0; bad < 3; bad++) {
    std::string caught;
    std::vector<int> counts(3, 0);
    try {
      run(team, 3, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
          counts[i]++;
          if (i == bad) throw std::runtime_error("part " + std::to_string(i));
        }
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    expect("the error of part " + std::to_string(bad), caught == "part " + std::to_string(bad));
    expect("the other parts", counts == std::vector<int>({1, 1, 1}));
    run(team, 3, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) counts[i]++;
    });
    expect("the loop after an error", counts == std::vector<int>({2, 2, 2}));
  }
  bool both = false;
  try {
    run(team, 3, [](int64_t, int64_t) { throw std::runtime_error("all"); });
  } catch (const std::runtime_error&) {
    both = true;
  }
  expect("one error of three", both);
  team.dismiss();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace effnet_fast

int main() {
  using namespace effnet_fast;
  using std::chrono::microseconds;
  count_up("alone", 1, 0, 100, microseconds(0), microseconds(0));
  count_up("nobody came", 4, 0, 100, microseconds(0), microseconds(0));
  count_up("two of two", 2, 1, 5000, microseconds(0), microseconds(0));
  count_up("four of four", 4, 3, 2000, microseconds(0), microseconds(0));
  count_up("two of four came", 4, 2, 2000, microseconds(0), microseconds(0));
  count_up("late", 3, 2, 3000, microseconds(500), microseconds(0));
  count_up("after it was over", 3, 2, 1, microseconds(20000), microseconds(0));
  count_up("asleep between loops", 3, 2, 40, microseconds(0), microseconds(2000));
  loops_of_any_size();
  what_a_part_throws(0);
  what_a_part_throws(2);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
