//! Why keys of LiteLLM are not carried over, and what there is instead.

/// By section and key.
const WHYS: &[(&str, &[&str], &str)] = &[
    (
        "general_settings",
        &["master_key"],
        "make new keys with `tidegate keys new`, or register the SHA-256 of this one under [users.NAME] with `admin = true`: \
         `printf %s \"$KEY\" | sha256sum`",
    ),
    (
        "general_settings",
        &["database_url", "database_connection_pool_limit", "store_model_in_db", "disable_spend_logs"],
        "the books are in SQLite ([ledger] path); keys, teams and models of that database are made anew in the configuration",
    ),
    (
        "general_settings",
        &["max_parallel_requests", "global_max_parallel_requests"],
        "[server] max_in_flight bounds all requests, `concurrent` those of a model",
    ),
    ("general_settings", &["alerting", "alerting_threshold"], "alerts are made of /metrics"),
    (
        "general_settings",
        &["background_health_checks", "health_check_interval"],
        "backends are probed without being asked to ([backends.NAME.health])",
    ),
    ("general_settings", &["maximum_spend_logs_retention_period"], "[ledger] retention says how long records are kept"),
    (
        "litellm_settings",
        &["drop_params", "modify_params"],
        "what a target cannot be told is left out and named in x-tidegate-dropped, or refused where that would change the answer",
    ),
    ("litellm_settings", &["cache", "cache_params"], "only the plugin `cache` keeps replies"),
    (
        "litellm_settings",
        &["callbacks", "success_callback", "failure_callback", "service_callback", "service_callbacks"],
        "usage is in the books and in /metrics; what is to be sent elsewhere is for a plugin",
    ),
    ("litellm_settings", &["set_verbose", "json_logs"], "`tidegate serve --log-json`, and the variable TIDEGATE_LOG"),
    (
        "",
        &["context_window_fallbacks", "content_policy_fallbacks"],
        "`fallbacks` are for targets that fail, not for this reason",
    ),
    (
        "router_settings",
        &["redis_host", "redis_port", "redis_password", "redis_url", "redis_db", "cache_responses"],
        "replicas share what plugins keep ([limits] redis), and nothing else in this version",
    ),
    (
        "router_settings",
        &["allowed_fails", "cooldown_time", "allowed_fails_policy", "disable_cooldowns"],
        "[backends.NAME.health] says when an address is set aside; it counts otherwise",
    ),
    (
        "router_settings",
        &["retry_policy", "model_group_retry_policy", "retry_after"],
        "`retries` are of a model, whatever failed, and at another target at once",
    ),
    ("router_settings", &["default_litellm_params"], DEFAULTS),
    ("", &["include"], "import these files, too"),
    ("", &["guardrails", "policies"], "what looks at requests and replies is a plugin"),
    ("", &["mcp_servers"], "MCP is not spoken"),
    ("", &["credential_list"], "it is not understood"),
    (
        "litellm_params",
        &["extra_headers", "organization", "api_version"],
        "no header can be added to what is asked of a backend",
    ),
    ("litellm_params", &["max_parallel_requests"], "`concurrent` bounds the requests of a model, wherever they go"),
    ("litellm_params", &["ssl_verify"], "`ca` of a backend says who vouches for its certificate; it is always checked"),
    (
        "litellm_params",
        &[
            "temperature",
            "top_p",
            "max_tokens",
            "max_completion_tokens",
            "stop",
            "seed",
            "reasoning_effort",
            "thinking",
        ],
        DEFAULTS,
    ),
    ("model_info", &["max_input_tokens"], "the length of a prompt is not looked at"),
];

const DEFAULTS: &str = "clients say it, and no default is put into their requests";

/// Why this key of this section is not carried over.
pub(super) fn of(section: &str, key: &str) -> &'static str {
    let fits = |(of, keys, _): &&(&str, &[&str], &str)| (of.is_empty() || *of == section) && keys.contains(&key);
    let general = match section {
        "model_info" => "nothing here reads it",
        _ => "there is no key for it",
    };
    WHYS.iter().find(fits).map_or(general, |(_, _, why)| *why)
}
