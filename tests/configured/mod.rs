//! Every number and switch of the configuration does something: for each a test that shows that it changes what happens.

mod controller;
mod database;
mod pace;

use std::collections::BTreeSet;
use std::path::Path;

/// Each key of a section and the test, or tests, that show what it changes, as file and name.
const KEYS: &[(&str, &[(&str, &str)])] = &[
    (
        "BackgroundUpdates",
        &[
            ("background_update_duration_ms", "configured/pace.rs the_built_in_policy_aims_and_sleeps_as_configured"),
            ("sleep_enabled", "configured/pace.rs the_built_in_policy_aims_and_sleeps_as_configured"),
            ("sleep_duration_ms", "configured/pace.rs the_built_in_policy_aims_and_sleeps_as_configured"),
            ("min_batch_size", "configured/pace.rs batches_are_as_large_as_configured"),
            ("default_batch_size", "configured/pace.rs batches_are_as_large_as_configured"),
            ("max_batch_size", "configured/pace.rs batches_are_as_large_as_configured"),
            ("max_target_duration_ms", "configured/controller.rs a_target_is_cut_to_the_configured_one"),
            ("poll_interval_ms", "configured/pace.rs the_queue_is_looked_at_as_often_as_configured"),
            ("max_attempts", "configured/pace.rs an_update_fails_as_often_as_configured"),
            ("shutdown_grace_ms", "crash/signals.rs a_batch_that_outlasts_the_grace_of_a_signal_is_rolled_back"),
            ("shutdown_grace_ms", "crash/signals.rs a_batch_in_hand_is_completed_within_the_grace_of_a_signal"),
            ("max_min_batch_size", "configured/controller.rs the_least_that_a_controller_asks_for_is_bounded"),
            ("batch_cut_off_ms", "configured/controller.rs the_least_that_a_controller_asks_for_is_bounded"),
            ("estimator", "configured/pace.rs batches_are_as_large_as_configured"),
            ("pace", "signals/foreground.rs a_gentle_pace_follows_what_batches_do_to_the_foreground"),
            ("gentle", "signals/foreground.rs a_gentle_pace_follows_what_batches_do_to_the_foreground"),
        ],
    ),
    (
        "Gentle",
        &[
            ("least_duty_percent", "signals/foreground.rs a_gentle_pace_follows_what_batches_do_to_the_foreground"),
            ("most_duty_percent", "signals/foreground.rs a_gentle_pace_follows_what_batches_do_to_the_foreground"),
            ("shortest_batch_ms", "signals/foreground.rs a_gentle_pace_follows_what_batches_do_to_the_foreground"),
            ("longest_sleep_ms", "simulate/gentle.rs it_rests_no_longer_than_configured"),
            ("allowed_excess_percent", "signals/foreground.rs a_gentle_pace_follows_what_batches_do_to_the_foreground"),
            ("allowed_excess_ms", "signals/foreground.rs a_gentle_pace_follows_what_batches_do_to_the_foreground"),
        ],
    ),
    (
        "Database",
        &[
            ("name", "config.rs updates_of_one_name_may_be_for_different_databases"),
            ("url", "config.rs a_full_file_is_understood"),
            ("url_file", "config.rs a_full_file_is_understood"),
            ("queue_table", "configured/database.rs the_queue_is_the_configured_table"),
            ("lock_timeout_ms", "configured/database.rs whichever_timeout_is_shorter_strikes"),
            ("statement_timeout_ms", "configured/database.rs whichever_timeout_is_shorter_strikes"),
            ("idle_in_transaction_timeout_ms", "configured/database.rs sessions_have_the_configured_timeouts"),
            (
                "idle_in_transaction_timeout_ms",
                "database/postgres_faults.rs a_transaction_left_idle_is_ended_by_the_server",
            ),
            ("busy_timeout_ms", "configured/database.rs a_locked_file_is_waited_for_as_long_as_configured"),
        ],
    ),
    (
        "Controller",
        &[
            ("name", "controllers/log.rs lines_have_the_controllers_name_and_cannot_pass_for_others"),
            ("path", "controllers/faults.rs a_controller_that_is_not_there"),
            ("sha256", "controllers/faults.rs a_wrong_digest_holds_whatever_the_fallback"),
            ("databases", "config.rs a_controller_paces_the_databases_that_it_names"),
            ("fallback", "controllers/faults.rs the_fallback_hold_holds_and_says_why"),
            ("max_faults", "configured/controller.rs patience_with_a_controller_is_as_long_as_configured"),
            ("shadow", "controllers/shadow.rs what_a_shadow_would_do_is_told_everywhere"),
            ("settings", "controllers/guests.rs rust_steady_sleeps_and_aims_as_its_settings_say"),
            ("limits", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
        ],
    ),
    (
        "Admin",
        &[
            ("listen", "admin/health.rs an_address_that_is_taken_is_named"),
            ("unix_socket", "admin/tokens.rs without_a_token_only_names_of_this_machine_are_answered"),
            ("max_body_bytes", "admin/table.rs everybody_is_answered_as_the_role_and_the_request_deserve"),
            ("max_header_bytes", "admin/limits.rs a_header_may_be_as_long_as_configured"),
            (
                "max_connections",
                "admin/limits.rs as_many_are_connected_as_configured_and_who_waits_gets_the_next_place",
            ),
            ("header_timeout_ms", "admin/limits.rs a_header_may_take_as_long_as_configured"),
            ("request_timeout_ms", "admin/limits.rs an_answer_may_take_as_long_as_configured"),
            ("token_file", "admin/tokens.rs a_file_of_tokens_is_read_again_at_a_reload"),
            ("token", "admin/tokens.rs a_new_token_opens_the_api"),
        ],
    ),
    (
        "Signals",
        &[
            ("enabled", "signals/program.rs nothing_is_sampled_where_that_is_off_or_nobody_could_read_it"),
            ("interval_ms", "signals/program.rs each_signal_is_sampled_as_often_as_configured"),
            ("timeout_ms", "signals/program.rs what_hangs_is_given_up_after_the_configured_time"),
            ("probe_write", "signals/guests.rs gentle_goes_by_what_the_probe_feels"),
            ("probe_interval_ms", "signals/foreground.rs without_a_probe_a_gentle_pace_is_as_steady_as_configured"),
        ],
    ),
    (
        "Signal",
        &[
            ("name", "signals/program.rs a_host_tells_them_by_every_way_and_a_reload_changes_them"),
            ("kind", "signals/program.rs the_command_measures_by_itself"),
            ("unit", "signals/program.rs the_command_measures_by_itself"),
            ("databases", "signals/program.rs what_is_said_of_a_signal_changes_what_is_measured"),
            ("interval_ms", "signals/program.rs each_signal_is_sampled_as_often_as_configured"),
            ("timeout_ms", "signals/program.rs what_is_said_of_a_signal_changes_what_is_measured"),
            ("sql", "signals/program.rs what_is_said_of_a_signal_changes_what_is_measured"),
            ("url", "signals/program.rs what_is_said_of_a_signal_changes_what_is_measured"),
            ("token", "signals/program.rs what_is_said_of_a_signal_changes_what_is_measured"),
            ("pointer", "signals/program.rs what_is_said_of_a_signal_changes_what_is_measured"),
            ("query", "signals/program.rs what_is_said_of_a_signal_changes_what_is_measured"),
            ("path", "signals/program.rs each_signal_is_sampled_as_often_as_configured"),
        ],
    ),
    (
        "Limits",
        &[
            ("fuel_per_call", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
            ("deadline_ms", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
            ("memory_bytes", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
            ("table_elements", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
            ("instances", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
            ("stack_bytes", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
            ("data_bytes", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
            ("handles", "configured/controller.rs each_limit_strikes_where_it_is_lowered"),
            ("log_lines_per_second", "configured/controller.rs limits_of_the_log_drop_and_cut_where_they_are_lowered"),
            ("log_line_bytes", "configured/controller.rs limits_of_the_log_drop_and_cut_where_they_are_lowered"),
        ],
    ),
];

/// The definition of the update `touch`, a backfill of `items`.
fn update(set: &str) -> String {
    format!("[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"{set}\"\n")
}

/// The fields of a section, as the host's own list has them.
fn fields(section: &str) -> BTreeSet<String> {
    let source = include_str!("../../host/config/src/raw.rs");
    let start = format!("pub(super) struct {section} {{");
    let body = source.split_once(&start).unwrap().1.split_once("\n}").unwrap().0;
    let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    fields.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn each_key_has_a_test_that_shows_what_it_changes() {
    for (section, keys) in KEYS {
        let listed: BTreeSet<String> = keys.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(listed, fields(section), "{section}");
        for (key, test) in *keys {
            let (file, name) = test.split_once(' ').unwrap();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(file);
            let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(source.contains(&format!("fn {name}(")), "{section}.{key}: no {name} in {file}");
        }
    }
}
