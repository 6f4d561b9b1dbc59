/* The least a controller can be: no pause, and every batch aims at the same duration, the setting `target_ms`. */

#include <stdlib.h>
#include <string.h>

#include "gen/controller.h"

#define DEFAULT_TARGET_MS 100
#define LARGEST_NUMBER 0x7fffffff

/* Short names for the generated ones. */
typedef exports_tidegate_controller_pacing_iteration_t iteration_t;
typedef exports_tidegate_controller_pacing_own_iteration_t own_iteration_t;
typedef exports_tidegate_controller_pacing_admission_t admission_t;
typedef exports_tidegate_controller_pacing_outcome_t outcome_t;

struct exports_tidegate_controller_pacing_iteration_t {
  uint32_t target_ms;
};

/* Reads decimal digits; anything else, or a number of 2^31 or more, is false. */
static bool parse_number(const controller_string_t *text, uint32_t *number) {
  uint64_t value = 0;
  if (text->len == 0) return false;
  for (size_t i = 0; i < text->len; i++) {
    if (text->ptr[i] < '0' || text->ptr[i] > '9') return false;
    value = value * 10 + (text->ptr[i] - '0');
    if (value > LARGEST_NUMBER) return false;
  }
  *number = (uint32_t)value;
  return true;
}

static void append(char **end, const void *text, size_t len) {
  memcpy(*end, text, len);
  *end += len;
}

/* Makes `setting `target_ms` is "…", not a number from 0 to 2147483647`; without stdio, which would import WASI. */
static void describe_bad_target(const controller_string_t *value, controller_string_t *err) {
  static const char before[] = "setting `target_ms` is \"";
  static const char after[] = "\", not a number from 0 to 2147483647";
  char *text = malloc(sizeof before + value->len + sizeof after);
  if (text == NULL) abort();
  char *end = text;
  append(&end, before, sizeof before - 1);
  append(&end, value->ptr, value->len);
  append(&end, after, sizeof after - 1);
  err->ptr = (uint8_t *)text;
  err->len = (size_t)(end - text);
}

static bool read_target(uint32_t *target_ms, controller_string_t *err) {
  controller_string_t key, value;
  controller_string_set(&key, "target_ms");
  *target_ms = DEFAULT_TARGET_MS;
  if (!tidegate_controller_settings_get(&key, &value)) return true;
  bool is_number = parse_number(&value, target_ms);
  if (!is_number) describe_bad_target(&value, err);
  controller_string_free(&value);
  return is_number;
}

/* Arguments belong to the callee: it frees them. */
bool exports_tidegate_controller_pacing_on_update(controller_string_t *update_name, controller_string_t *database_name,
                                                  bool one_shot, own_iteration_t *ret, controller_string_t *err) {
  (void)one_shot;
  controller_string_free(update_name);
  controller_string_free(database_name);
  uint32_t target_ms;
  if (!read_target(&target_ms, err)) return false;
  iteration_t *iteration = malloc(sizeof *iteration);
  if (iteration == NULL) abort();
  iteration->target_ms = target_ms;
  *ret = exports_tidegate_controller_pacing_iteration_new(iteration);
  return true;
}

bool exports_tidegate_controller_pacing_method_iteration_enter(iteration_t *self, admission_t *ret,
                                                               controller_string_t *err) {
  (void)err;
  ret->tag = EXPORTS_TIDEGATE_CONTROLLER_PACING_ADMISSION_RUN;
  ret->val.run = self->target_ms;
  return true;
}

bool exports_tidegate_controller_pacing_method_iteration_exit(iteration_t *self, outcome_t *outcome,
                                                              controller_string_t *err) {
  (void)self;
  (void)err;
  exports_tidegate_controller_pacing_outcome_free(outcome);
  return true;
}

void exports_tidegate_controller_pacing_iteration_destructor(iteration_t *iteration) { free(iteration); }
