//! The core of the tests: what a kernel must be able to do, in tests that an emulated processor runs in minutes.

/// The families of socket hooks, by the names that `capture-agent run --hooks` knows, cheapest for the host first.
pub(super) const HOOKS: [&str; 4] = ["fexit", "sock_length", "sys_exit", "tracepoints"];

/// One thing that capture needs of a kernel.
pub(super) struct Topic {
    /// Its column in the table.
    pub(super) name: &'static str,
    /// Whether each family of hooks must prove it, or the cheapest alone.
    pub(super) each: bool,
    /// The check of `capture-agent doctor` without which the tests cannot pass.
    pub(super) needs: Option<&'static str>,
    /// The test program, and its tests.
    pub(super) tests: &'static [(&'static str, &'static [&'static str])],
}

/// A server of PostgreSQL 15 is what Debian's package brings, whatever else setup has installed.
pub(super) const TOPICS: [Topic; 11] = [
    Topic {
        name: "clear sessions",
        each: true,
        needs: None,
        tests: &[
            ("zero_missing", &["postgres_15::psql"]),
            ("ledger", &["postgres_15::bytes_over_a_unix_socket_are_accounted_for"]),
            ("hooks", &["no_program_takes_the_verifier_long"]),
        ],
    },
    Topic { name: "forks", each: true, needs: None, tests: &[("discovery", &["local_clients_are_named"])] },
    Topic {
        name: "many forks, large calls",
        each: false,
        needs: None,
        tests: &[
            ("discovery", &["many_short_sessions_are_all_found"]),
            ("ledger", &["postgres_15::one_call_of_many_megabytes_is_accounted_for"]),
        ],
    },
    Topic {
        name: "unwanted rows",
        each: false,
        needs: None,
        tests: &[("passed", &["what_is_no_row_ends_it"])],
    },
    Topic {
        name: "stop by signal",
        each: true,
        needs: None,
        tests: &[("signals", &["a_process_that_a_hook_stops_does_not_see_what_it_received"])],
    },
    Topic {
        name: "detach",
        each: false,
        needs: None,
        tests: &[("lifecycle", &["an_agent_that_pins_nothing_takes_its_hooks_with_it"])],
    },
    Topic {
        name: "TLS",
        each: false,
        needs: Some("TLS probes"),
        tests: &[(
            "tls",
            &[
                "postgres_15::version_and_cipher_are_those_that_the_server_names",
                "a_session_that_was_open_before_is_picked_up",
            ],
        )],
    },
    Topic {
        name: "seccomp",
        each: false,
        needs: Some("TLS probes"),
        tests: &[(
            "tls",
            &[
                "a_server_under_a_seccomp_filter_that_refuses_survives",
                "a_server_under_a_seccomp_filter_that_kills_survives",
            ],
        )],
    },
    Topic {
        name: "dead agent: nothing lost",
        each: false,
        needs: Some("pins"),
        tests: &[("restart", &["sessions_go_on_in_the_middle_of_anything"])],
    },
    Topic {
        name: "full ring: required waits",
        each: false,
        needs: Some("pins"),
        tests: &[("required", &["the_next_agent_reads_what_waits"])],
    },
    Topic {
        name: "dead agent: break shown",
        each: false,
        needs: None,
        tests: &[("restart", &["where_nothing_is_pinned_the_break_shows"])],
    },
];
