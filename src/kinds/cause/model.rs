//! Wordings about the model: missing, damaged, not for this build, not for this user. Within a line the first entry
//! wins.
use super::entry::*;
use crate::policy::Cause::*;

#[rustfmt::skip]
pub(super) const ENTRIES: &[Entry] = &[
    // Both come with a 401 that says less; see the generic one below.
    decisive(ALL, AuthGated, AGAIN, &[
        r"GatedRepoError", r"access to model .* is restricted", r"access (a |to a )?gated repo",
        r"is gated", r"must (be|have) (authenticated|access) .*to access",
        r"Your request to access .* (is|has been)", r"access to this repo.* restricted", r"requires approval",
    ], "OSError: You are trying to access a gated repo."),
    decisive(ALL, ModelMissing, AGAIN, &[r"RepositoryNotFoundError", r"Repository not found for url"],
        "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1-2)"),
    specific(ALL, AuthGated, AGAIN, &[
        r"401 Client Error", r"403 Client Error", r"invalid (username or password|credentials)",
        r"invalid user token", r"pull model manifest: 40[13]",
        r"HTTPError.*\b40[13]\b.*(huggingface|hf\.co)", r"unauthorized: ", r"HF API.*40[13]",
        r"status code:? 40[13]\b",
    ],
        "requests.exceptions.HTTPError: 403 Client Error: Forbidden for url: \
        https://huggingface.co/org/m/resolve/main/config.json"),

    specific(ALL, ModelMissing, AGAIN, &[
        r"invalid repository ID or local directory", r"is not a local folder and is not a valid model",
        r"HFValidationError", r"Repo id must", r"cannot find any .*weights", r"Could not find checkpoint files",
        r"does not appear to have a file named", r"RevisionNotFoundError", r"EntryNotFoundError: 404",
        r"cannot find an appropriate cached snapshot", r"outgoing traffic has been disabled",
        r"404 Client Error", r"Incorrect path_or_model_id",
        r"Can't load (the configuration|tokenizer|image processor)",
        r"Couldn't instantiate the backend tokenizer", r"No adapter found for",
        // How sentencepiece says that there is no file.
        r"TypeError: not a string$",
        r"(No supported|Unsupported) config format", r"Cannot find the config file for",
        r"Error no file named", r"Found 0 files matching", r"Make sure that a .*tokenizer is present",
        r"OfflineModeIsEnabled", r"No such file or directory: ['\x22]\S*(config\.json|tokenizer\S*)['\x22]",
    ],
        "OSError: org/nope is not a local folder and is not a valid model identifier listed on \
        'https://huggingface.co/models'"),
    specific(VLLM, Network, PASSES, &[
        r"error happened while trying to locate the files? on the Hub",
        r"couldn't find (it|them) in the cached files",
    ],
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the \
        file on the Hub and we cannot find the requested files in the local cache. Please check your \
        connection"),
    specific(ALL, ModelMissing, AGAIN, &[r"LocalEntryNotFoundError"],
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk \
        cache"),
    // What a container was to be given of this host.
    specific(ALL, ModelMissing, AGAIN, &[r"bind source path does not exist", r"statfs \S+: no such file"],
        "docker: Error response from daemon: invalid mount config for type \x22bind\x22: bind source path does not \
        exist: /models."),
    specific(GGML, ModelMissing, AGAIN, &[
        r"failed to open GGUF file", r"failed to open \S+\.gguf\S*: No such file",
        r"not available in cache \(offline", r"failed to (fetch model metadata|resolve the model)",
        r"no such model file", r"failed to open .*No such file",
        r"model (path|file) .*(does not exist|not found)",
        r"GGUF file .*not found",
    ], "gguf_init_from_file: failed to open GGUF file 'models/nope.gguf' (No such file or directory)"),
    specific(OLLAMA, ModelMissing, AGAIN, &[
        r"model \\?['\x22]\S+['\x22] not found", r"pull model manifest: file does not exist", r"try pulling it",
        r"model not found", r"manifest unknown", r"^Error: (file does not exist|open \S+: no such file)",
    ], "{\"error\":\"model 'nope' not found\"}"),

    specific(ALL, ModelCorrupt, AGAIN, &[
        r"SafetensorError", r"HeaderTooLarge", r"MetadataIncompleteBuffer", r"InvalidHeader",
        r"deserializing header", r"invalid load key", r"UnpicklingError", r"PytorchStreamReader failed",
        r"is not a valid JSON file", r"consistency check failed", r"JSONDecodeError",
        r"Unable to load weights from pytorch checkpoint", r"EOFError: Ran out of input",
        r"could not parse ModelProto", r"(expected|invalid|EOF while) .* at line \d+ column \d+$",
        r"(Error: |^\s*Value error, )(Expecting|Extra data|Unterminated|Invalid (control|\\escape)).*: line \d+ column \d+",
        r"No such file or directory: ['\x22]\S*\.(safetensors|bin|pt)\S*['\x22]",
    ], "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer"),
    specific(GGML, ModelCorrupt, AGAIN, &[
        r"invalid (magic characters|file magic)", r"bad magic", r"not within the file bounds",
        r"corrupted (or incomplete|model)", r"offset\+size.*exceeds file size", r"exceeds file size",
        r"not in GGUF format", r"has invalid data", r"failed to read (magic|key-value|tensor (data|info))",
        r"digest mismatch", r"file size mismatch", r"is truncated", r"tensor .* out of bounds",
        r"tensor .* is duplicated", r"unexpectedly reached end of file", r"invalid split file",
        r"read error: Input/output error",
    ],
        "llama_model_load: error loading model: tensor 'blk.0.ffn_down.weight' data is not within the \
        file bounds, model is corrupted or incomplete"),

    // A file that Git keeps elsewhere begins with a word where JSON has none.
    specific(OLLAMA, ModelCorrupt, AGAIN, &[r"^Error: invalid character .* looking for beginning of value"],
        "Error: invalid character 'v' looking for beginning of value"),

    // What every vLLM knows is refused only where it could not import the code of it.
    specific(VLLM, BrokenInstall, AGAIN, &[r"Model architectures? \['(Llama|Mistral|Qwen2)ForCausalLM'\] "],
        "ValueError: Model architectures ['LlamaForCausalLM'] are not supported for now. Supported \
        architectures: ["),
    specific(VLLM, ModelUnsupported, AGAIN, &[
        r"Model architectures? .*(not supported|failed to be inspected)",
        r"does not recognize this architecture", r"Unrecognized model in",
        r"Unrecognized configuration class", r"Tokenizer class \S+ does not exist", r"untagged enum",
        r"no module or parameter named", r"Unknown quantization method",
        r"model type .* (is )?not supported", r"Cannot find model module", r"has no vLLM implementation",
        r"GGUF model with architecture",
        r"KeyError: '\S*layers\.\d+\.\S+'", r"weights were not initialized from checkpoint",
        r"'\w+Config' object has no attribute", r"Unknown RoPE scaling", r"head size \d+ is not supported",
        r"not supported by (ROCm|vLLM)", r"Unknown architecture", r"No valid attention backend",
        r"expected target modules in",
    ],
        "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported \
        architectures: dict_keys(["),
    specific(GGML, ModelUnsupported, AGAIN, &[
        r"(unknown|unsupported) (model )?architecture", r"unknown pre-tokenizer type", r"unknown tokenizer",
        r"wrong number of tensors", r"missing tensor '", r"check_tensor_dims: tensor",
        r"only supports up to version", r"has wrong shape; expected",
        r"has invalid ggml type", r"is no longer supported", r"unsupported (GGUF|model|file type|vocab)",
        r"key not found in model", r"cannot find tokenizer (merges|vocab)", r"invalid vocab",
        r"failed to apply lora adapter", r"arch mismatch", r"unknown projector type",
        r"don't support projector", r"failed to load model '.*': (load_hparams|operator\(\)): ",
        r"unable to find tensor", r"\btensor \\*['\x22][\w.]+\\*['\x22] not found", r"failed to load quantized weight",
        r"unsupported tensor type", r"GGUF version \d+ (is )?(un|not )supported",
    ],
        "llama_model_load: error loading model: error loading model architecture: unknown model \
        architecture: 'qwen4'"),
    specific(OLLAMA, ModelUnsupported, AGAIN, &[
        r"may be incompatible with your version of Ollama", r"requires a newer version of Ollama",
        r"not supported by your version of Ollama", r"this model is not supported", r"Ollama does(n't| not)( yet)? support",
        r"^Error: (unknown|unsupported|invalid) (type|content type|version|architecture)\b",
    ],
        "pull model manifest: 412: The model you are attempting to pull requires a newer version of \
        Ollama."),

    specific(GGML, BadArgument, AGAIN, &[
        r"illegal split file: .*must be loaded with the first split", r"not compatible with the target model",
        r"draft model vocab \w+ must match",
    ],
        "llama_model_load: error loading model: illegal split file: 3, model must be loaded with the first split"),
    specific(GGML, ModelUnsupported, AGAIN, &[r"what\(\): .* at row \d+, column \d+"],
        "  what():  Expected block keyword at row 152, column 17:"),
    // What the file says about itself was read, and this build cannot do with it.
    symptom(GGML, ModelUnsupported, AGAIN, &[r"error loading model (architecture|hyperparameters|vocabulary): "],
        "llama_model_load: error loading model: error loading model vocabulary: _Map_base::at"),
    // How a file is damaged stands above; what else a loader says is about what the file asks for.
    symptom(GGML, ModelUnsupported, OPEN, &[r"error loading model: "],
        "llama_model_load: error loading model: something new"),
    // The loader gave up, for a reason that it printed before. Ollama says it only of files that are there.
    symptom(OLLAMA, ModelUnsupported, OPEN, &[r"unable to load model: \S*sha256-"],
        "Error: 500 Internal Server Error: unable to load model: /m/blobs/sha256-ed12a4674d72"),
    symptom(GGML, ModelUnsupported, OPEN, &[r"failed to load (multimodal|CLIP) model"],
        "srv    load_model: failed to load multimodal model, '/m/mmproj.gguf'"),
    symptom(GGML, ModelMissing, OPEN, &[
        r"failed to load model", r"unable to load model", r"exiting due to model loading error",
    ], "srv  llama_server: exiting due to model loading error"),

    // One request; the engine lives.
    note(ALL, ContextTooSmall, OPEN, &[
        r"maximum context length", r"exceeds the available context size", r"exceed_context_size_error",
        r"longer than the (context length|maximum model length)", r"truncating input prompt",
        r"input (prompt )?exceeds", r"Context size has been exceeded", r"exceeds maximum context",
        r"context window is full",
        r"input is (too large to process|larger than the max context size)", r"is too long (and exceeds|to fit into the model)",
    ],
        "srv    send_error: task 3, error: request (12015 tokens) exceeds the available context size \
        (4096 tokens), try increasing it"),
];
