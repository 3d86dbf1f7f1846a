#!/usr/bin/env python3
"""make_models.py OUT: a small Llama with random weights, twice from the same weights:

  OUT/NAME-hf/     config.json, model.safetensors, tokenizer.json and a chat template, for vLLM
  OUT/NAME.gguf    for llama.cpp and Ollama

Deterministic: the same options give the same files, and the three engines the same greedy text. That text is nonsense made of
lower-case word pieces. One hidden channel is a constant, and the output row of every token that is special or not plain
letters points against it, so a request always runs to max_tokens and a stream is always valid UTF-8. With --eos-bias 0 the
end-of-turn token is like any other, and an answer ends by itself after some tokens.

  tiny    as by default: 1.4 M parameters, 3 MB, 200 to 4,000 tokens a second
  brief   --eos-bias 0
  slow    181 M parameters, 363 MB, 40 tokens a second with one thread: for faults in the middle of an answer
"""
import argparse
import json
import os

import gguf
import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = """The supervisor starts the engine and waits until the health check answers. A request comes in, the
router looks for a worker that is ready, and the tokens stream back to the client one by one. When a worker
dies in the middle of a stream the client must see an error and the supervisor must start a new one. Time is
measured in seconds, memory in bytes, and speed in tokens per second. If the device hangs, the process is
still alive but nothing moves, so only a real request can tell. We drain before we stop, we stop before we
start again, and we keep a log of every change so that a person can read what happened later. Models are
loaded from disk, cached in memory, and evicted when there is no more room for them on the device. Users ask
questions, write code, summarise text and translate between languages; the answers should be quick, correct
and complete. Numbers such as 0 1 2 3 4 5 6 7 8 9 10 16 32 64 100 128 256 512 1000 1024 2048 appear as well.
"""
CHAT = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BEGIN, END = SPECIAL[0], SPECIAL[2]
VOCABULARY = 512
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def options():
    parser = argparse.ArgumentParser(description="see the top of this file")
    parser.add_argument("out")
    parser.add_argument("--name", default="tiny")
    for name, default in dict(layers=2, hidden=256, ff=512, heads=4, kv_heads=2, ctx=4096).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--eos-bias", type=float, default=-10.0, help="-10: never ends by itself; 0: like any other token")
    return parser.parse_args()


class Words:
    """A byte-level BPE tokenizer (of GPT-2's kind), trained on TEXT."""

    def __init__(self):
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        self.tokenizer.decoder = decoders.ByteLevel()
        self.tokenizer.train_from_iterator([TEXT] * 20, trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
        parts = json.loads(self.tokenizer.to_str())["model"]
        self.ids = parts["vocab"]
        self.tokens = [token for token, _ in sorted(self.ids.items(), key=lambda item: item[1])]
        self.merges = [m if isinstance(m, str) else " ".join(m) for m in parts["merges"]]

    def may_be_said(self, token):
        """Word pieces of two or more plain letters; U+0120 stands for the space before a word."""
        return token not in SPECIAL and len(token) >= 2 and all(
            c == "\u0120" or (c.isascii() and c.isalpha()) for c in token)


def weights_of(shape, words):
    random = numpy.random.default_rng(0)

    def matrix(rows, columns, scale=1.0):
        return random.standard_normal((rows, columns), dtype=numpy.float32) * numpy.float32(scale / numpy.sqrt(columns))

    hidden, head = shape.hidden, shape.hidden // shape.heads
    weights = {}
    embedding = random.standard_normal((len(words.tokens), hidden), dtype=numpy.float32)
    embedding[:, 0] = 8.0
    weights["model.embed_tokens.weight"] = embedding
    for layer in range(shape.layers):
        sizes = {
            "self_attn.q_proj": (shape.heads * head, hidden), "self_attn.k_proj": (shape.kv_heads * head, hidden),
            "self_attn.v_proj": (shape.kv_heads * head, hidden), "self_attn.o_proj": (hidden, shape.heads * head),
            "mlp.gate_proj": (shape.ff, hidden), "mlp.up_proj": (shape.ff, hidden), "mlp.down_proj": (hidden, shape.ff),
        }
        for name, (rows, columns) in sizes.items():
            weight = matrix(rows, columns)
            if name in ("self_attn.o_proj", "mlp.down_proj"):
                weight[0, :] = 0                             # nothing writes to the constant channel
            else:
                weight[:, 0] = 0                             # and no layer reads it
            weights[f"model.layers.{layer}.{name}.weight"] = weight
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = numpy.ones(hidden, numpy.float32)
    weights["model.norm.weight"] = numpy.ones(hidden, numpy.float32)
    output = matrix(len(words.tokens), hidden, 2.5)
    output[:, 0] = [0.0 if words.may_be_said(token) else -10.0 for token in words.tokens]
    output[words.ids[END], 0] = shape.eos_bias
    weights["lm_head.weight"] = output
    return weights


def write_hugging_face(folder, shape, words, weights):
    os.makedirs(folder, exist_ok=True)
    words.tokenizer.save(os.path.join(folder, "tokenizer.json"))
    save_file({name: weight.astype(numpy.float16) for name, weight in weights.items()},
              os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    begin, end = words.ids[BEGIN], words.ids[END]
    files = {
        "config.json": dict(
            architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=shape.hidden, intermediate_size=shape.ff,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
            head_dim=shape.hidden // shape.heads, vocab_size=len(words.tokens), max_position_embeddings=shape.ctx,
            rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, attention_bias=False,
            mlp_bias=False, bos_token_id=begin, eos_token_id=end, torch_dtype="float16", dtype="float16", use_cache=True),
        "generation_config.json": dict(bos_token_id=begin, eos_token_id=end),
        "tokenizer_config.json": dict(
            tokenizer_class="PreTrainedTokenizerFast", bos_token=BEGIN, eos_token=END, pad_token=BEGIN,
            model_max_length=shape.ctx, clean_up_tokenization_spaces=False, chat_template=CHAT),
    }
    for name, content in files.items():
        with open(os.path.join(folder, name), "w") as file:
            json.dump(content, file, indent=1)


def rotary(weight, heads):
    """Rows of a query or key projection, from Hugging Face's rotary layout to llama.cpp's."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, shape, words, weights):
    file = gguf.GGUFWriter(path, "llama")
    file.add_name(f"{shape.name}-random-llama")
    file.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    file.add_context_length(shape.ctx)
    file.add_embedding_length(shape.hidden)
    file.add_block_count(shape.layers)
    file.add_feed_forward_length(shape.ff)
    file.add_head_count(shape.heads)
    file.add_head_count_kv(shape.kv_heads)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_dimension_count(shape.hidden // shape.heads)
    file.add_rope_freq_base(10000.0)
    file.add_vocab_size(len(words.tokens))
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("gpt-2")
    file.add_token_list(words.tokens)
    file.add_token_types([gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in words.tokens])
    file.add_token_merges(words.merges)
    file.add_bos_token_id(words.ids[BEGIN])
    file.add_eos_token_id(words.ids[END])
    file.add_pad_token_id(words.ids[BEGIN])
    file.add_add_bos_token(False)
    file.add_chat_template(CHAT)
    for name, weight in weights.items():
        if name.startswith("model.layers."):
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            if part == "self_attn.q_proj":
                weight = rotary(weight, shape.heads)
            if part == "self_attn.k_proj":
                weight = rotary(weight, shape.kv_heads)
            name = f"blk.{layer}.{GGUF_NAMES[part]}.weight"
        else:
            name = GGUF_NAMES[name]
        file.add_tensor(name, numpy.ascontiguousarray(weight.astype(numpy.float16) if weight.ndim == 2 else weight))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def main():
    shape = options()
    words = Words()
    weights = weights_of(shape, words)
    path = os.path.join(shape.out, shape.name)
    write_hugging_face(path + "-hf", shape, words, weights)
    write_gguf(path + ".gguf", shape, words, weights)
    parameters = sum(weight.size for weight in weights.values())
    print(f"models: {path}.gguf and {shape.name}-hf, {parameters:,} parameters")


if __name__ == "__main__":
    main()
