/* The policy: a batch waits while replicas lag behind, and otherwise aims at a target duration. */

#include <stdlib.h>
#include <string.h>

#include "gen/controller.h"

/* A reading older than this, in milliseconds, says nothing about now. */
#define STALE_MS 30000

/* How long to wait before asking again, in milliseconds. */
#define WAIT_MS 500

/* Short names for the generated ones. */
typedef controller_string_t text_t;
typedef exports_tidegate_controller_pacing_iteration_t iteration_t;
typedef exports_tidegate_controller_pacing_own_iteration_t own_iteration_t;
typedef exports_tidegate_controller_pacing_admission_t admission_t;
typedef exports_tidegate_controller_pacing_outcome_t outcome_t;

/* One iteration of one update: it is entered, perhaps several times, until it lets a batch run. */
struct exports_tidegate_controller_pacing_iteration_t {
  text_t database;
  uint32_t target_ms;
  uint32_t max_lag_ms;
};

/* Writes a text, and a number, at the end of another. Not by stdio.h, which would want WASI. */
static char *put(char *end, const char *text) { return strcpy(end, text) + strlen(text); }

static char *put_number(char *end, uint64_t number) {
  if (number > 9) end = put_number(end, number / 10);
  *end++ = (char)('0' + number % 10);
  *end = '\0';
  return end;
}

static void run(admission_t *answer, uint32_t target_ms) {
  answer->tag = EXPORTS_TIDEGATE_CONTROLLER_PACING_ADMISSION_RUN;
  answer->val.run = target_ms;
}

static void wait(admission_t *answer, uint32_t ms, const char *reason) {
  answer->tag = EXPORTS_TIDEGATE_CONTROLLER_PACING_ADMISSION_WAIT;
  answer->val.wait.duration = ms;
  controller_string_dup(&answer->val.wait.reason, reason);
}

/* A setting that the operator may write below [controller.settings]. An error holds the update, and is shown. */
static bool number(const char *key, uint32_t otherwise, uint32_t *value, text_t *error) {
  text_t name, text;
  char message[64];
  *value = otherwise;
  controller_string_set(&name, key);
  if (!tidegate_controller_settings_get(&name, &text)) return true;
  bool is_number = text.len > 0 && text.len < 10;
  *value = 0;
  for (size_t i = 0; i < text.len && is_number; i++) {
    is_number = text.ptr[i] >= '0' && text.ptr[i] <= '9';
    *value = *value * 10 + (text.ptr[i] - '0');
  }
  controller_string_free(&text);
  if (is_number) return true;
  put(put(put(message, "setting `"), key), "` is not a number");
  controller_string_dup(error, message);
  return false;
}

/* Arguments belong to the callee: it frees them, or keeps them. */
bool exports_tidegate_controller_pacing_on_update(text_t *update, text_t *database, bool one_shot,
                                                  own_iteration_t *answer, text_t *error) {
  (void)one_shot;
  controller_string_free(update);
  uint32_t target_ms, max_lag_ms;
  if (!number("target_ms", 100, &target_ms, error)) return false;
  if (!number("max_lag_ms", 1000, &max_lag_ms, error)) return false;
  iteration_t *iteration = malloc(sizeof *iteration);
  if (iteration == NULL) abort();
  *iteration = (iteration_t){*database, target_ms, max_lag_ms};
  *answer = exports_tidegate_controller_pacing_iteration_new(iteration);
  return true;
}

bool exports_tidegate_controller_pacing_method_iteration_enter(iteration_t *self, admission_t *answer, text_t *error) {
  (void)error;
  text_t name;
  tidegate_controller_signals_reading_t lag;
  controller_string_set(&name, "replication-lag");
  if (!tidegate_controller_signals_read(&self->database, &name, &lag)) {
    run(answer, self->target_ms); /* Nobody measures it here. */
  } else if (lag.age > STALE_MS) {
    run(answer, self->target_ms / 10); /* Nobody knows: go on, but gently. */
  } else if (lag.value > self->max_lag_ms) {
    char reason[80];
    char *end = put_number(put(reason, "replication lag "), (uint64_t)lag.value);
    put(put_number(put(end, " ms > "), self->max_lag_ms), " ms");
    wait(answer, WAIT_MS, reason);
  } else {
    run(answer, self->target_ms);
  }
  return true;
}

bool exports_tidegate_controller_pacing_method_iteration_exit(iteration_t *self, outcome_t *outcome, text_t *error) {
  (void)self, (void)error;
  if (outcome->tag == EXPORTS_TIDEGATE_CONTROLLER_PACING_OUTCOME_FAILED)
    tidegate_controller_log_write(TIDEGATE_CONTROLLER_LOG_LEVEL_WARN, &outcome->val.failed);
  exports_tidegate_controller_pacing_outcome_free(outcome);
  return true;
}

void exports_tidegate_controller_pacing_iteration_destructor(iteration_t *self) {
  controller_string_free(&self->database);
  free(self);
}
