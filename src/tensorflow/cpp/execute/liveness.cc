#include "execute/liveness.h"

#include <algorithm>
#include <vector>

namespace session_group {
namespace {

// The users of a slot, as seen from where it is made: a use within a loop counts as a use by the
// loop.
struct Uses {
  int maker = -1;          // the step that makes it
  int home = -1;           // the step of the loop that it is made in; -1 if in none
  bool of_turn = false;    // a loop variable, which the loop makes for each iteration
  bool is_nested = false;  // used within a loop that it is not made in
  int count = 0;
  int last = -1;    // the last step that uses it
  int at_last = 0;  // how many inputs of that step
};

class Liveness {
 public:
  explicit Liveness(Layout* layout);

  void Find();

 private:
  using Step = Layout::Step;
  using Value = Layout::Value;

  void Forget(int slot, const Uses& used, bool guarded);
  void PlaceVariable(int slot, const Uses& used, Layout::Variable* variable);
  void FindMoved(const std::vector<Uses>& uses, const std::vector<bool>& fetched);

  Layout* const l_;
  std::vector<int> owner_;  // by step, the step of the loop that it is in; -1 if in none
};

Liveness::Liveness(Layout* layout) : l_(layout) {
  std::vector<int> owners;  // from the outermost loop to the innermost
  for (size_t s = 0; s < l_->steps.size(); ++s) {
    const int at = static_cast<int>(s);
    while (!owners.empty() && at >= l_->steps[owners.back()].next) owners.pop_back();
    owner_.push_back(owners.empty() ? -1 : owners.back());
    if (l_->steps[s].kind == Step::kLoop) owners.push_back(at);
  }
}

void Liveness::Find() {
  std::vector<Uses> uses(l_->output_attrs.size());
  std::vector<Layout::Variable*> variables(uses.size(), nullptr);
  for (size_t s = 0; s < l_->steps.size(); ++s) {
    const Step& step = l_->steps[s];
    const int at = static_cast<int>(s);
    if (step.kind == Step::kBranch) continue;  // Its outputs are literals.
    for (int i = 0; i < step.num_outputs; ++i) {
      Uses& made = uses[step.first_output + i];
      made.maker = made.last = at;
      made.home = owner_[s];
    }
    if (step.kind != Step::kLoop) continue;
    for (Layout::Variable& variable : l_->loops[step.number].variables) {
      Uses& made = uses[variable.slot];
      made.home = made.maker = at;
      made.of_turn = true;
      variables[variable.slot] = &variable;
    }
  }
  for (size_t s = 0; s < l_->steps.size(); ++s) {
    const Step& step = l_->steps[s];
    for (int i = 0; i < step.num_inputs; ++i) {
      const Value& input = l_->inputs[step.first_input + i];
      if (input.kind != Value::kSlot) continue;
      Uses& used = uses[input.index];
      int by = static_cast<int>(s);
      while (owner_[by] != used.home) {
        by = owner_[by];
        used.is_nested = true;
      }
      ++used.count;
      if (by > used.last) used.at_last = 0;
      used.last = std::max(used.last, by);
      ++used.at_last;
    }
  }
  std::vector<bool> fetched(uses.size(), false);
  for (const Value& fetch : l_->fetches) {
    if (fetch.kind == Value::kSlot) fetched[fetch.index] = true;
  }
  for (size_t slot = 0; slot < uses.size(); ++slot) {
    const Uses& used = uses[slot];
    if (used.maker < 0) continue;  // The step of a loop or of lookups frees it.
    const int number = static_cast<int>(slot);
    if (used.of_turn) {
      PlaceVariable(number, used, variables[slot]);
      continue;
    }
    const bool guarded = used.count + (fetched[slot] ? 1 : 0) > 1 || used.is_nested;
    if (guarded) l_->steps[used.maker].guard.push_back(number);
    if (fetched[slot]) continue;
    Forget(number, used, guarded);
  }
  FindMoved(uses, fetched);
}

void Liveness::Forget(int slot, const Uses& used, bool guarded) {
  Step& step = l_->steps[used.last];
  step.dead.push_back(slot);
  if (!guarded) return;
  (used.at_last == 1 && !used.is_nested ? step.unguard : step.dead_guards).push_back(slot);
}

// The previous iteration makes a loop variable. If there is no further iteration, the loop returns
// it, so only steps in the loop's body may write to it in place.
void Liveness::PlaceVariable(int slot, const Uses& used, Layout::Variable* variable) {
  const int test = l_->loops[l_->steps[used.home].number].test;
  const bool stays = !variable->exits.empty() && used.last <= test;
  variable->is_guarded = used.count > 1 || used.is_nested || (stays && used.count > 0);
  if (used.count > 0 && !stays) Forget(slot, used, variable->is_guarded);
}

// Finds the first values of loop variables that only the loop needs.
void Liveness::FindMoved(const std::vector<Uses>& uses, const std::vector<bool>& fetched) {
  for (size_t s = 0; s < l_->steps.size(); ++s) {
    const Step& step = l_->steps[s];
    if (step.kind != Step::kLoop) continue;
    for (int i = 0; i < step.num_inputs; ++i) {
      const Value& first = l_->inputs[step.first_input + i];
      if (first.kind != Value::kSlot || fetched[first.index]) continue;
      const Uses& used = uses[first.index];
      l_->loops[step.number].variables[i].is_moved =
          used.last == static_cast<int>(s) && used.at_last == 1 && !used.is_nested;
    }
  }
}

}  // namespace

void FindLastUses(Layout* layout) { Liveness(layout).Find(); }

}  // namespace session_group
