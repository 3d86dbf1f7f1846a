use super::*;

/// What engines and the servers in front of them have beside inference, by their own lists of routes: vLLM 0.33,
/// llama-server of October 2026, Ollama 0.33, SGLang, and LocalAI's and llama-swap's management of models.
const KNOWN: &[&str] = &[
    "/abort_requests /collective_rpc /fault_tolerance/apply /fault_tolerance/status /finish_weight_update",
    "/inference/v1/abort_requests /init_weight_transfer_engine /invocations /is_scaling_elastic_ep /load_lora_adapter",
    "/pause /release_kv_cache_memory /reset_encoder_cache /reset_mm_cache /reset_prefix_cache /resume",
    "/scale_elastic_ep /server_info /shutdown_weight_transfer_engine /sleep /start_draft_weight_update",
    "/start_profile /start_weight_update /stop_profile /unload_lora_adapter /update_weight_version",
    "/update_weights /v1/responses/resp_1/cancel /wake_up /weight_checker /weight_info",
    "/cors-proxy /lora-adapters /models/load /models/unload /props /slots /slots/0 /tools /v1/streams",
    "/v1/chat/completions/control",
    "/api/blobs /api/blobs/sha256-1 /api/copy /api/create /api/delete /api/pull /api/push /api/signout",
    "/api/user/keys/k",
    "/abort_request /attach_hicache_storage_backend /clear_hicache_storage_backend /close_session /configure_logging",
    "/continue_generation /destroy_weights_update_group /detach_hicache_storage_backend",
    "/dump_expert_distribution_record /flush_cache /freeze_gc /get_weights_by_name",
    "/init_weights_send_group_for_remote_instance /init_weights_update_group /load_lora_adapter_from_tensors",
    "/open_session /pause_generation /release_memory_occupation /resume_memory_occupation /set_internal_state",
    "/set_trace_level /slow_down /start_expert_distribution_record /stop_expert_distribution_record",
    "/update_weights_from_disk /update_weights_from_distributed /update_weights_from_tensor",
    "/api/models/unload/m /backend/shutdown /models/apply /models/delete/m /unload",
];

fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().flat_map(|line| line.split(' '))
}

#[test]
fn what_changes_an_engine_is_known_under_every_spelling() {
    for path in known() {
        assert!(changes_engine(path), "{path}");
        assert!(changes_engine(&format!("{path}/")), "{path}/");
        assert!(changes_engine(&format!("{path}/below")), "{path}/below");
        for prefix in ["/v1", "/v2", "/v1/v1", "/api", "/inference/v1", "/some/base"] {
            assert!(changes_engine(&format!("{prefix}{path}")), "{prefix}{path}");
        }
        assert!(changes_engine(&path.to_ascii_uppercase()), "upper {path}");
        assert!(changes_engine(&path.replace('_', "-")), "hyphens in {path}");
    }
    for path in ["/%73leep", "//rerank", "/x/../y", "/./x", "x", "", "/", "/x?level=1", "/a;b", "/a\\b"] {
        assert!(changes_engine(path), "{path}");
    }
    for path in ["/v1", "/sleeper", "/generate", "/generate_stream", "/predict", "/v1/stream/c", "/embed"] {
        assert!(!changes_engine(path), "{path}");
    }
}

#[test]
fn inference_changes_nothing() {
    for path in INFERENCE {
        assert!(!changes_engine(path), "{path}");
        assert_eq!(canonical(path), *path, "it can be asked for");
    }
    assert!(known().all(|path| !is_inference(path)));
    assert!(FORMS.iter().all(|path| is_inference(path)));
}

#[test]
fn one_path_has_one_spelling() {
    for (given, expected) in [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("//v1/chat/completions", "/v1/chat/completions"),
        ("/v1//chat/completions/", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/completions/", "/v1/completions"),
        ("//embeddings", "/v1/embeddings"),
        ("/models", "/v1/models"),
        ("/models/", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/models/a//b/", "/v1/models/a//b/"),
        ("//v1/models//srv/m", "/v1/models//srv/m"),
        ("/health/", "/health"),
        ("/", "/"),
        ("//", "/"),
        ("", ""),
        ("*", "*"),
        ("/tokenize/", "/tokenize"),
        ("/a/../b", "/a/../b"),
        ("/%2fv1", "/%2fv1"),
    ] {
        assert_eq!(canonical(given), expected, "{given}");
    }
}
