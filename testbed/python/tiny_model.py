"""`tiny_model.py FILE`: writes a model with random weights that llama.cpp's server loads.

A Llama of two layers with byte tokens, a few hundred KiB, the same file every time. It says nothing
sensible, but it is counted, streamed and embedded like any other.
"""

import random
import struct
import sys
from pathlib import Path

WIDTH, HEADS, LAYERS, HIDDEN, CONTEXT = 64, 4, 2, 128, 512
# GGUF value types, and the one tensor type used here.
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
F32, ALIGNMENT = 0, 32
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"

# Unknown, begin, end; then every byte; then the letters themselves, so that most text is short.
TOKENS = [("<unk>", 2), ("<s>", 3), ("</s>", 3)] + [(f"<0x{byte:02X}>", 6) for byte in range(256)]
TOKENS += [("\u2581" if code == 32 else chr(code), 1) for code in range(32, 127)]


def text(value: str) -> bytes:
    """A GGUF string."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value) -> bytes:
    """One key with its value."""
    plain = {UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}
    if kind == STRING:
        return text(key) + struct.pack("<I", STRING) + text(value)
    return text(key) + struct.pack("<I", kind) + struct.pack(plain[kind], value)


def array(key: str, kind: int, values: list) -> bytes:
    """One key with a list."""
    packed = {STRING: text, FLOAT32: lambda v: struct.pack("<f", v), INT32: lambda v: struct.pack("<i", v)}[kind]
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + b"".join(packed(value) for value in values)


def keys() -> list[bytes]:
    """What the model is."""
    llama = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS,
        "rope.dimension_count": WIDTH // HEADS,
        "vocab_size": len(TOKENS),
    }
    return [
        entry("general.architecture", STRING, "llama"),
        entry("general.name", STRING, "tiny"),
        entry("general.alignment", UINT32, ALIGNMENT),
        *(entry(f"llama.{key}", UINT32, value) for key, value in llama.items()),
        entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        entry("tokenizer.ggml.model", STRING, "llama"),
        array("tokenizer.ggml.tokens", STRING, [token for token, _ in TOKENS]),
        array("tokenizer.ggml.scores", FLOAT32, [0.0] * len(TOKENS)),
        array("tokenizer.ggml.token_type", INT32, [kind for _, kind in TOKENS]),
        entry("tokenizer.ggml.unknown_token_id", UINT32, 0),
        entry("tokenizer.ggml.bos_token_id", UINT32, 1),
        entry("tokenizer.ggml.eos_token_id", UINT32, 2),
        entry("tokenizer.ggml.add_bos_token", BOOL, True),
        entry("tokenizer.chat_template", STRING, TEMPLATE),
    ]


def shapes() -> list[tuple[str, list[int]]]:
    """Every tensor with its dimensions, fastest first."""
    tensors = [("token_embd.weight", [WIDTH, len(TOKENS)]), ("output_norm.weight", [WIDTH]), ("output.weight", [WIDTH, len(TOKENS)])]
    for layer in range(LAYERS):
        block = {
            "attn_norm": [WIDTH],
            "attn_q": [WIDTH, WIDTH],
            "attn_k": [WIDTH, WIDTH],
            "attn_v": [WIDTH, WIDTH],
            "attn_output": [WIDTH, WIDTH],
            "ffn_norm": [WIDTH],
            "ffn_gate": [WIDTH, HIDDEN],
            "ffn_up": [WIDTH, HIDDEN],
            "ffn_down": [HIDDEN, WIDTH],
        }
        tensors += [(f"blk.{layer}.{name}.weight", shape) for name, shape in block.items()]
    return tensors


def main() -> None:
    """Writes argv[1]."""
    dice = random.Random(402)
    infos, data = b"", b""
    for name, shape in shapes():
        count = 1
        for size in shape:
            count *= size
        infos += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", F32, len(data))
        values = [1.0] * count if "norm" in name else [dice.gauss(0.0, 0.08) for _ in range(count)]
        data += struct.pack(f"<{count}f", *values)
        data += bytes(-len(data) % ALIGNMENT)
    pairs = keys()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes()), len(pairs)) + b"".join(pairs) + infos
    head += bytes(-len(head) % ALIGNMENT)
    Path(sys.argv[1]).write_bytes(head + data)


if __name__ == "__main__":
    main()
