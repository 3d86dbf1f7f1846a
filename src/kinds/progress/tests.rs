use super::*;
use crate::kinds::Api;

#[track_caller]
fn check(kind: Kind, line: &str, stage: &str, done: Option<Done>) {
    let found = progress(kind, line).unwrap_or_else(|| panic!("nothing in: {line}"));
    assert_eq!((found.stage, found.done), (stage, done), "{line}");
}

/// The stages of a whole log, each once, as the start climbed.
fn climbed(kind: Kind, log: &str) -> Vec<&'static str> {
    let mut seen: Vec<Progress> = Vec::new();
    for found in log.lines().filter_map(|line| progress(kind, line)) {
        if seen.last().is_none_or(|last| found.rung > last.rung) {
            seen.push(found);
        }
    }
    seen.iter().map(|found| found.stage).collect()
}

/// From a start of vLLM 0.32.0 on a CPU, without the lines that tell nothing.
const VLLM_CPU: &str = "\
(APIServer pid=17346) INFO 11-23 04:23:36 [api_utils.py:286] non-default args: {'model_tag': '/models/tiny-hf', 'port': 50433}
(APIServer pid=17346) INFO 11-23 04:23:36 [model.py:733] Resolved architecture: LlamaForCausalLM
(APIServer pid=17346) WARNING 11-23 04:23:36 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup.
(EngineCore pid=17441) INFO 11-23 04:23:48 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/models/tiny-hf'
(Worker pid=17554) INFO 11-23 04:24:09 [parallel_state.py:1906] world_size=1 rank=0 local_rank=0 distributed_init_method=file:///tmp/x backend=gloo
(Worker pid=17554) INFO 11-23 04:24:09 [parallel_state.py:2350] rank 0 in world size 1 is assigned as DP rank 0, PP rank 0, TP rank 0
(Worker pid=17554) INFO 11-23 04:24:09 [cpu_model_runner.py:68] Starting to load model /models/tiny-hf...
Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]
Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 29.99it/s]
(Worker pid=17554) INFO 11-23 04:24:10 [default_loader.py:501] Loading weights took 0.04 seconds
(EngineCore pid=17441) INFO 11-23 04:24:11 [utils.py:347] Using LBHNC KV cache layout.
(Worker pid=17554) INFO 11-23 04:24:11 [cpu_worker.py:260] Explicitly set (0.06/18.71) GiB for KV cache on node 0.
(EngineCore pid=17441) INFO 11-23 04:24:11 [kv_cache_utils.py:2327] CPU KV cache size: 32,768 tokens, Maximum concurrency for 4,096 tokens per request: 8.00x
(EngineCore pid=17441) INFO 11-23 04:24:11 [core.py:402] init engine (profile, create kv cache, warmup model) took 0.19 s
(APIServer pid=17346) INFO 11-23 04:24:13 [entry.py:140] Starting vLLM server on http://127.0.0.1:50433
(APIServer pid=17346) INFO:     Application startup complete.";

/// After the documented wording of a start on a GPU.
const VLLM_GPU: &str = "\
(APIServer pid=1) INFO 11-22 12:00:01 [api_server.py:1839] vLLM API server version 0.11.0
(EngineCore_DP0 pid=272) INFO 11-22 12:00:05 [core.py:77] Initializing a V1 LLM engine (v0.11.0) with config: model='org/model-8b'
(EngineCore_DP0 pid=272) INFO 11-22 12:00:20 [parallel_state.py:1208] rank 0 in world size 1 is assigned as DP rank 0
(EngineCore_DP0 pid=272) INFO 11-22 12:00:21 [gpu_model_runner.py:2602] Starting to load model org/model-8b...
Fetching 4 files:  25%|##5       | 1/4 [00:10<00:30, 10.1s/it]
model-00001-of-00004.safetensors:  45%|####5     | 2.25G/4.97G [00:30<00:37, 72.0MB/s]
(EngineCore_DP0 pid=272) INFO 11-22 12:00:28 [weight_utils.py:392] Time spent downloading weights for org/model-8b: 61.2 s
Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.76it/s]
(EngineCore_DP0 pid=272) INFO 11-22 12:00:30 [gpu_model_runner.py:2653] Model loading took 14.9889 GiB and 5.1 seconds
(EngineCore_DP0 pid=272) INFO 11-22 12:00:36 [backends.py:559] Dynamo bytecode transform time: 5.91 s
(EngineCore_DP0 pid=272) INFO 11-22 12:00:40 [backends.py:197] Compiling a graph for dynamic shape takes 21.2 s
(EngineCore_DP0 pid=272) INFO 11-22 12:00:49 [monitor.py:34] torch.compile takes 27.1 s in total
(EngineCore_DP0 pid=272) INFO 11-22 12:00:50 [gpu_worker.py:298] Available KV cache memory: 4.65 GiB
(EngineCore_DP0 pid=272) INFO 11-22 12:00:50 [kv_cache_utils.py:1087] GPU KV cache size: 38,080 tokens
Capturing CUDA graphs (decode, FULL):  55%|#####5    | 37/67 [00:03<00:00, 20.1it/s]
(EngineCore_DP0 pid=272) INFO 11-22 12:00:58 [gpu_model_runner.py:3480] Graph capturing finished in 8 secs, took 0.61 GiB
(EngineCore_DP0 pid=272) INFO 11-22 12:00:58 [core.py:210] init engine (profile, create kv cache, warmup model) took 28.30 seconds
(APIServer pid=1) INFO 11-22 12:01:00 [api_server.py:1912] Starting vLLM API server 0 on http://0.0.0.0:8000
INFO:     Application startup complete.";

#[test]
fn a_start_of_vllm_climbs_its_ladder() {
    let cpu = [
        "reading its configuration",
        "starting its engine core",
        "starting its workers",
        "preparing the model",
        "loading weights",
        "allocating the KV cache",
        "opening its endpoint",
        "listening",
    ];
    assert_eq!(climbed(Kind::Vllm, VLLM_CPU), cpu);
    let mut gpu: Vec<&str> = stages(Kind::Vllm).collect();
    gpu.retain(|stage| *stage != "warming up");
    assert_eq!(climbed(Kind::Vllm, VLLM_GPU), gpu);
    let unseen: Vec<&str> = VLLM_GPU.lines().filter(|line| progress(Kind::Vllm, line).is_none()).collect();
    assert_eq!(unseen, Vec::<&str>::new());
}

/// From llama-server at its default and at a higher verbosity.
#[test]
fn a_start_of_llama_server_climbs_its_ladder() {
    let terse = "\
0.00.048.196 I srv  llama_server: initializing ...
0.00.049.960 I cmn  common_param: common_params_print_info: verbosity = 3 (adjust with the `-lv N` CLI arg)
0.00.057.284 I srv    load_model: loading model '/m/slow.gguf'
0.06.138.053 I cmn          init: llama threadpool init, n_threads = 2
0.06.157.200 I srv    load_model: initializing, n_slots = 4, n_ctx_slot = 4096, kv_unified = 'true'
0.06.158.322 I srv  llama_server: model loaded
0.06.158.396 I srv  llama_server: listening on http://127.0.0.1:40669";
    let expected = ["reading its configuration", "loading weights", "opening its endpoint", "listening"];
    assert_eq!(climbed(Kind::LlamaServer, terse), expected);
    let verbose = "\
0.00.041.829 I llama_model_loader: Dumping metadata keys/values. Note: KV overrides do not apply in this output.
0.00.043.774 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.044.212 I load_tensors:   CPU_Mapped model buffer size =     2.75 MiB
0.00.044.300 I load_tensors: offloaded 33/33 layers to GPU
0.00.049.225 I llama_context:        CPU  output buffer size =     0.01 MiB
0.00.049.287 I llama_kv_cache:        CPU KV buffer size =     4.00 MiB
0.00.062.032 I cmn  common_init_: warming up the model with an empty run - please wait ... (--no-warmup to disable)
0.00.073.145 I srv  llama_server: model loaded
main: server is listening on http://127.0.0.1:8080 - starting the main loop";
    let expected =
        ["loading weights", "allocating the KV cache", "warming up", "opening its endpoint", "listening"];
    assert_eq!(climbed(Kind::LlamaServer, verbose), expected);
}

/// From Ollama 0.33.0, whose log has its llama-server's in it, and which asks that one twice whether it is there.
#[test]
fn a_start_of_ollama_climbs_its_ladder() {
    let log = "\
time=2026-11-23T04:37:44.932Z level=INFO source=routes.go:1951 msg=\"server config\" env=\"map[]\"
time=2026-11-23T04:37:44.935Z level=INFO source=routes.go:2008 msg=\"Listening on 127.0.0.1:39773 (version 0.33.0)\"
time=2026-11-23T04:37:45.107Z level=INFO source=types.go:50 msg=\"inference compute\" id=cpu library=cpu
time=2026-11-23T04:37:46.000Z level=INFO source=download.go:177 msg=\"downloading 8eeb52dfb3bb in 16 291 MB part(s)\"
time=2026-11-23T04:37:48.122Z level=INFO source=llama_server.go:433 msg=\"starting llama-server\" cmd=\"llama-server --model x\"
time=2026-11-23T04:37:48.126Z level=INFO source=llama_server.go:1350 msg=\"waiting for llama-server to become available\" status=\"llm server not responding\"
load_tensors: loading model tensors, this can take a while... (load_mode = none)
llama_kv_cache:        CPU KV buffer size =    64.00 MiB
cmn  common_init_: warming up the model with an empty run - please wait ... (--no-warmup to disable)
srv  llama_server: model loaded
srv  llama_server: listening on http://127.0.0.1:45025
time=2026-11-23T04:37:52.668Z level=INFO source=llama_server.go:1362 msg=\"llama-server started in 4.54 seconds\"
time=2026-11-23T04:37:52.668Z level=INFO source=llama_server.go:1295 msg=\"waiting for llama-server to start responding\"";
    assert_eq!(climbed(Kind::Ollama, log), stages(Kind::Ollama).collect::<Vec<_>>());
    check(
        Kind::Ollama,
        "time=x level=INFO source=server.go:1289 msg=\"llama runner started in 3.02 seconds\"",
        "listening",
        None,
    );
    let fetched = fetching(Kind::Ollama, Some(12)).expect("Ollama fetches models");
    assert_eq!((fetched.stage, fetched.done), ("downloading weights", Some(Done::Percent(12))));
}

#[test]
fn a_line_says_how_much_of_its_stage_is_done() {
    let check = |line, stage, done| check(Kind::Vllm, line, stage, Some(done));
    let shards = "Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:02,  1.5it/s]";
    check(shards, "loading weights", Done::Count { percent: 50, n: 2, of: 4 });
    check(
        "\rLoading safetensors checkpoint shards:   0%\rLoading safetensors checkpoint shards: 100%\r",
        "loading weights",
        Done::Percent(100),
    );
    check(
        "Fetching 4 files:  25%|##5   | 1/4 [00:10<00:30]",
        "downloading weights",
        Done::Count { percent: 25, n: 1, of: 4 },
    );
    let bytes = "model-00001-of-00004.safetensors:  45%|####5     | 2.25G/4.97G [00:30<00:37, 72.0MB/s]";
    check(bytes, "downloading weights", Done::Percent(45));
    let graphs = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  55%|#####5    | 37/67";
    check(graphs, "capturing CUDA graphs", Done::Count { percent: 55, n: 37, of: 67 });
}

#[test]
fn dots_are_progress_of_llama_cpp() {
    check(Kind::LlamaServer, "..........\n", "loading weights", Some(Done::Dots(10)));
    check(Kind::Ollama, &".".repeat(400), "loading weights", Some(Done::Dots(100)));
    assert_eq!(progress(Kind::Vllm, "..."), None);
    assert_eq!(progress(Kind::LlamaServer, "   "), None);
}

#[test]
fn a_line_that_tells_nothing_is_nothing() {
    assert_eq!(progress(Kind::Vllm, "INFO 11-22 [x.py:1] hello 40%"), None);
    assert_eq!(progress(Kind::Remote(Api::OpenAi), "Application startup complete"), None);
    assert_eq!(fetching(Kind::Remote(Api::OpenAi), Some(1)), None);
    check(Kind::Vllm, "Capturing CUDA graphs: 900%", "capturing CUDA graphs", None);
    check(Kind::Vllm, "Capturing CUDA graphs: %", "capturing CUDA graphs", None);
}
