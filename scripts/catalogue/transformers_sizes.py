"""Published sizes of transformers' architectures: what their ``config.json`` sets other than the defaults.

Only values that change a tensor are listed. The first class of a row is the one that the published weights are of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SIZES", "TOWERS", "Size"]


class Size(NamedTuple):
    """A checkpoint of the hub: its configuration, and the classes that are built with it.

    ``classes``: the number that its head was trained for, where it has one.
    """

    checkpoint: str
    config: str
    values: Mapping[str, Any]
    models: tuple[str, ...]
    classes: int | None = None


def _bert(checkpoint: str, **values: Any) -> Size:
    models = ("BertForMaskedLM", "BertModel", "BertForSequenceClassification", "BertForTokenClassification")
    return Size(checkpoint, "BertConfig", values, models)


def _embedding(checkpoint: str, **values: Any) -> Size:
    return Size(checkpoint, "BertConfig", values, ("BertModel", "BertForSequenceClassification"))


def _encoder(family: str, checkpoint: str, **values: Any) -> Size:
    models = (f"{family}ForMaskedLM", f"{family}Model", f"{family}ForSequenceClassification")
    return Size(checkpoint, f"{family}Config", values, models)


def _decoder(family: str, checkpoint: str, **values: Any) -> Size:
    models = (f"{family}ForCausalLM", f"{family}Model", f"{family}ForSequenceClassification")
    return Size(checkpoint, f"{family}Config", values, models)


def _gpt2(checkpoint: str, **values: Any) -> Size:
    return Size(checkpoint, "GPT2Config", values, ("GPT2LMHeadModel", "GPT2Model", "GPT2ForSequenceClassification"))


def _t5(family: str, checkpoint: str, **values: Any) -> Size:
    models = (f"{family}ForConditionalGeneration", f"{family}EncoderModel")
    return Size(checkpoint, f"{family}Config", values, models)


def _llama(
    checkpoint: str, vocab: int, hidden: int, inner: int, layers: int, heads: int, keys: int, **more: Any
) -> Size:
    return _like_llama("Llama", checkpoint, vocab, hidden, inner, layers, heads, keys, **more)


def _like_llama(
    family: str, checkpoint: str, vocab: int, hidden: int, inner: int, layers: int, heads: int, keys: int, **more: Any
) -> Size:
    return _decoder(
        family,
        checkpoint,
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        **more,
    )


def _neox(checkpoint: str, vocab: int, hidden: int, layers: int, heads: int) -> Size:
    return _decoder(
        "GPTNeoX",
        checkpoint,
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )


def _opt(checkpoint: str, hidden: int, layers: int, heads: int, **more: Any) -> Size:
    return _decoder(
        "OPT",
        checkpoint,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        ffn_dim=4 * hidden,
        **{"word_embed_proj_dim": hidden, **more},
    )


def _bloom(checkpoint: str, hidden: int, layers: int, heads: int) -> Size:
    return _decoder("Bloom", checkpoint, vocab_size=250880, hidden_size=hidden, n_layer=layers, n_head=heads)


def _image(family: str, checkpoint: str, **values: Any) -> Size:
    models = (f"{family}ForImageClassification", f"{family}Model")
    return Size(checkpoint, f"{family}Config", values, models, classes=1000)


def _sized(hidden: int, layers: int, heads: int) -> dict[str, int]:
    """A transformer of the usual proportions."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }


def _whisper(checkpoint: str, width: int, layers: int, heads: int, **more: Any) -> Size:
    values = {
        "d_model": width,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        **more,
    }
    return Size(
        checkpoint, "WhisperConfig", values, ("WhisperForConditionalGeneration", "WhisperForAudioClassification")
    )


def _esm(checkpoint: str, hidden: int, layers: int, heads: int) -> Size:
    values = {
        **_sized(hidden, layers, heads),
        "vocab_size": 33,
        "max_position_embeddings": 1026,
        "position_embedding_type": "rotary",
        "emb_layer_norm_before": False,
        "pad_token_id": 1,
        "mask_token_id": 32,
    }
    return _encoder("Esm", checkpoint, **values)


def _deberta(checkpoint: str, hidden: int, layers: int, heads: int) -> Size:
    values = {
        **_sized(hidden, layers, heads),
        "vocab_size": 128100,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "pooler_hidden_size": hidden,
    }
    return _encoder("DebertaV2", checkpoint, **values)


_LARGE = _sized(1024, 24, 16)
_GATED: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_CLIP_LARGE_TEXT = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "projection_dim": 768}
_CLIP_LARGE_VISION = {**_LARGE, "patch_size": 14, "projection_dim": 768}
_SPEECH_LARGE = {**_LARGE, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

SIZES: tuple[Size, ...] = (
    _bert("google-bert/bert-large-uncased", **_LARGE),
    _bert("google-bert/bert-base-cased", vocab_size=28996),
    _bert("google-bert/bert-large-cased", vocab_size=28996, **_LARGE),
    _bert("google-bert/bert-base-multilingual-cased", vocab_size=119547),
    _bert("google-bert/bert-base-multilingual-uncased", vocab_size=105879),
    _bert("google-bert/bert-base-chinese", vocab_size=21128),
    _bert("google-bert/bert-base-german-cased", vocab_size=30000),
    _bert("google/bert_uncased_L-2_H-128_A-2", **_sized(128, 2, 2)),
    _bert("google/bert_uncased_L-4_H-256_A-4", **_sized(256, 4, 4)),
    _bert("google/bert_uncased_L-4_H-512_A-8", **_sized(512, 4, 8)),
    _bert("google/bert_uncased_L-8_H-512_A-8", **_sized(512, 8, 8)),
    _bert("allenai/scibert_scivocab_uncased", vocab_size=31090),
    _embedding("sentence-transformers/all-MiniLM-L6-v2", **_sized(384, 6, 12)),
    _embedding("sentence-transformers/all-MiniLM-L12-v2", **_sized(384, 12, 12)),
    _encoder("DistilBert", "distilbert/distilbert-base-cased", vocab_size=28996),
    _encoder("DistilBert", "distilbert/distilbert-base-multilingual-cased", vocab_size=119547),
    _encoder("Roberta", "FacebookAI/roberta-base", max_position_embeddings=514, type_vocab_size=1),
    _encoder("Roberta", "FacebookAI/roberta-large", max_position_embeddings=514, type_vocab_size=1, **_LARGE),
    _encoder(
        "Roberta", "distilbert/distilroberta-base", max_position_embeddings=514, type_vocab_size=1, num_hidden_layers=6
    ),
    _encoder("Camembert", "almanach/camembert-base", vocab_size=32005, max_position_embeddings=514, type_vocab_size=1),
    _encoder(
        "XLMRoberta", "FacebookAI/xlm-roberta-base", vocab_size=250002, max_position_embeddings=514, type_vocab_size=1
    ),
    _encoder(
        "XLMRoberta",
        "FacebookAI/xlm-roberta-large",
        vocab_size=250002,
        max_position_embeddings=514,
        type_vocab_size=1,
        **_LARGE,
    ),
    _encoder("MPNet", "microsoft/mpnet-base", max_position_embeddings=514),
    _encoder("Albert", "albert/albert-base-v2", hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    _encoder("Albert", "albert/albert-large-v2", hidden_size=1024, num_attention_heads=16, intermediate_size=4096),
    _encoder("Albert", "albert/albert-xlarge-v2", hidden_size=2048, num_attention_heads=16, intermediate_size=8192),
    Size(
        "google/electra-base-discriminator",
        "ElectraConfig",
        {**_sized(768, 12, 12), "embedding_size": 768},
        ("ElectraForPreTraining", "ElectraModel", "ElectraForSequenceClassification"),
    ),
    Size(
        "google/electra-large-discriminator",
        "ElectraConfig",
        {**_LARGE, "embedding_size": 1024},
        ("ElectraForPreTraining", "ElectraModel", "ElectraForSequenceClassification"),
    ),
    _deberta("microsoft/deberta-v3-xsmall", 384, 12, 6),
    _deberta("microsoft/deberta-v3-small", 768, 6, 12),
    _deberta("microsoft/deberta-v3-base", 768, 12, 12),
    _deberta("microsoft/deberta-v3-large", 1024, 24, 16),
    _encoder(
        "Longformer",
        "allenai/longformer-base-4096",
        vocab_size=50265,
        max_position_embeddings=4098,
        type_vocab_size=1,
        pad_token_id=1,
    ),
    _encoder(
        "ModernBert",
        "answerdotai/ModernBERT-large",
        hidden_size=1024,
        intermediate_size=2624,
        num_hidden_layers=28,
        num_attention_heads=16,
    ),
    Size(
        "xlnet/xlnet-base-cased",
        "XLNetConfig",
        {"d_model": 768, "n_layer": 12, "n_head": 12, "d_inner": 3072},
        ("XLNetLMHeadModel", "XLNetModel", "XLNetForSequenceClassification"),
    ),
    _esm("facebook/esm2_t6_8M_UR50D", 320, 6, 20),
    _esm("facebook/esm2_t12_35M_UR50D", 480, 12, 20),
    _esm("facebook/esm2_t30_150M_UR50D", 640, 30, 20),
    _esm("facebook/esm2_t33_650M_UR50D", 1280, 33, 20),
    _esm("facebook/esm2_t36_3B_UR50D", 2560, 36, 40),
    _gpt2("distilbert/distilgpt2", n_layer=6),
    _gpt2("openai-community/gpt2-medium", n_embd=1024, n_layer=24, n_head=16),
    _gpt2("openai-community/gpt2-large", n_embd=1280, n_layer=36, n_head=20),
    _gpt2("openai-community/gpt2-xl", n_embd=1600, n_layer=48, n_head=25),
    _decoder(
        "GPTNeo",
        "EleutherAI/gpt-neo-125m",
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        attention_types=[[["global", "local"], 6]],
    ),
    _decoder(
        "GPTNeo",
        "EleutherAI/gpt-neo-2.7B",
        hidden_size=2560,
        num_layers=32,
        num_heads=20,
        attention_types=[[["global", "local"], 16]],
    ),
    _neox("EleutherAI/pythia-70m", 50304, 512, 6, 8),
    _neox("EleutherAI/pythia-160m", 50304, 768, 12, 12),
    _neox("EleutherAI/pythia-410m", 50304, 1024, 24, 16),
    _neox("EleutherAI/pythia-1b", 50304, 2048, 16, 8),
    _neox("EleutherAI/pythia-1.4b", 50304, 2048, 24, 16),
    _neox("EleutherAI/pythia-2.8b", 50304, 2560, 32, 32),
    _neox("EleutherAI/pythia-6.9b", 50432, 4096, 32, 32),
    _neox("EleutherAI/pythia-12b", 50688, 5120, 36, 40),
    _opt("facebook/opt-350m", 1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    _opt("facebook/opt-1.3b", 2048, 24, 32),
    _opt("facebook/opt-2.7b", 2560, 32, 32),
    _opt("facebook/opt-6.7b", 4096, 32, 32),
    _opt("facebook/opt-13b", 5120, 40, 40),
    _opt("facebook/opt-30b", 7168, 48, 56),
    _bloom("bigscience/bloom-560m", 1024, 24, 16),
    _bloom("bigscience/bloom-1b1", 1536, 24, 16),
    _bloom("bigscience/bloom-1b7", 2048, 24, 16),
    _bloom("bigscience/bloom-3b", 2560, 30, 32),
    _bloom("bigscience/bloom-7b1", 4096, 30, 32),
    _bloom("bigscience/bloom", 14336, 70, 112),
    _llama("meta-llama/Llama-2-13b-hf", 32000, 5120, 13824, 40, 40, 40),
    _llama("meta-llama/Llama-2-70b-hf", 32000, 8192, 28672, 80, 64, 8),
    _llama("meta-llama/Meta-Llama-3-8B", 128256, 4096, 14336, 32, 32, 8),
    _llama("meta-llama/Meta-Llama-3-70B", 128256, 8192, 28672, 80, 64, 8),
    _llama("meta-llama/Llama-3.2-1B", 128256, 2048, 8192, 16, 32, 8, head_dim=64, tie_word_embeddings=True),
    _llama("meta-llama/Llama-3.2-3B", 128256, 3072, 8192, 28, 24, 8, head_dim=128, tie_word_embeddings=True),
    _llama("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 32000, 2048, 5632, 22, 32, 4),
    _llama("HuggingFaceTB/SmolLM-135M", 49152, 576, 1536, 30, 9, 3, tie_word_embeddings=True),
    _llama("HuggingFaceTB/SmolLM-360M", 49152, 960, 2560, 32, 15, 5, tie_word_embeddings=True),
    _llama("HuggingFaceTB/SmolLM-1.7B", 49152, 2048, 8192, 24, 32, 32, tie_word_embeddings=True),
    _like_llama("Mistral", "mistralai/Mistral-7B-v0.3", 32768, 4096, 14336, 32, 32, 8),
    _like_llama("Mistral", "mistralai/Mistral-Nemo-Base-2407", 131072, 5120, 14336, 40, 32, 8, head_dim=128),
    _like_llama("Mixtral", "mistralai/Mixtral-8x22B-v0.1", 32768, 6144, 16384, 56, 48, 8),
    _like_llama("Qwen2", "Qwen/Qwen2-0.5B", 151936, 896, 4864, 24, 14, 2, tie_word_embeddings=True),
    _like_llama("Qwen2", "Qwen/Qwen2-1.5B", 151936, 1536, 8960, 28, 12, 2, tie_word_embeddings=True),
    _like_llama("Qwen2", "Qwen/Qwen2.5-3B", 151936, 2048, 11008, 36, 16, 2, tie_word_embeddings=True),
    _like_llama("Qwen2", "Qwen/Qwen2-7B", 152064, 3584, 18944, 28, 28, 4),
    _like_llama("Qwen2", "Qwen/Qwen2.5-14B", 152064, 5120, 13824, 48, 40, 8),
    _like_llama("Qwen2", "Qwen/Qwen2.5-32B", 152064, 5120, 27648, 64, 40, 8),
    _like_llama("Qwen2", "Qwen/Qwen2-72B", 152064, 8192, 29568, 80, 64, 8),
    _like_llama("Qwen3", "Qwen/Qwen3-0.6B", 151936, 1024, 3072, 28, 16, 8, head_dim=128, tie_word_embeddings=True),
    _like_llama("Qwen3", "Qwen/Qwen3-1.7B", 151936, 2048, 6144, 28, 16, 8, head_dim=128, tie_word_embeddings=True),
    _like_llama("Qwen3", "Qwen/Qwen3-4B", 151936, 2560, 9728, 36, 32, 8, head_dim=128, tie_word_embeddings=True),
    _like_llama("Qwen3", "Qwen/Qwen3-8B", 151936, 4096, 12288, 36, 32, 8, head_dim=128, tie_word_embeddings=False),
    _like_llama("Qwen3", "Qwen/Qwen3-14B", 151936, 5120, 17408, 40, 40, 8, head_dim=128, tie_word_embeddings=False),
    _like_llama("Qwen3", "Qwen/Qwen3-32B", 151936, 5120, 25600, 64, 64, 8, head_dim=128, tie_word_embeddings=False),
    _like_llama("Gemma", "google/gemma-2b", 256000, 2048, 16384, 18, 8, 1, head_dim=256),
    _like_llama("Gemma2", "google/gemma-2-9b", 256000, 3584, 14336, 42, 16, 8, head_dim=256),
    _like_llama("Gemma2", "google/gemma-2-27b", 256000, 4608, 36864, 46, 32, 16, head_dim=128),
    _decoder(
        "Phi",
        "microsoft/phi-2",
        vocab_size=51200,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
    ),
    _decoder(
        "Falcon",
        "tiiuae/falcon-40b",
        hidden_size=8192,
        num_hidden_layers=60,
        num_attention_heads=128,
        num_kv_heads=8,
        new_decoder_architecture=True,
    ),
    *(
        Size(f"state-spaces/mamba-{name}-hf", "MambaConfig", values, ("MambaForCausalLM", "MambaModel"))
        for name, values in {
            "130m": {"hidden_size": 768, "num_hidden_layers": 24},
            "370m": {"hidden_size": 1024, "num_hidden_layers": 48},
            "790m": {"hidden_size": 1536, "num_hidden_layers": 48},
            "1.4b": {"hidden_size": 2048, "num_hidden_layers": 48},
            "2.8b": {"hidden_size": 2560, "num_hidden_layers": 64},
        }.items()
    ),
    _t5("T5", "google-t5/t5-base", d_model=768, d_ff=3072, num_layers=12, num_heads=12),
    _t5("T5", "google-t5/t5-large", d_model=1024, d_ff=4096, num_layers=24, num_heads=16),
    _t5("T5", "google-t5/t5-3b", d_model=1024, d_ff=16384, d_kv=128, num_layers=24, num_heads=32),
    _t5("T5", "google-t5/t5-11b", d_model=1024, d_ff=65536, d_kv=128, num_layers=24, num_heads=128),
    _t5("T5", "google/flan-t5-small", d_model=512, d_ff=1024, num_layers=8, num_heads=6, **_GATED),
    _t5("T5", "google/flan-t5-base", d_model=768, d_ff=2048, num_layers=12, num_heads=12, **_GATED),
    _t5("T5", "google/flan-t5-large", d_model=1024, d_ff=2816, num_layers=24, num_heads=16, **_GATED),
    _t5("T5", "google/flan-t5-xl", d_model=2048, d_ff=5120, num_layers=24, num_heads=32, **_GATED),
    _t5("T5", "google/flan-t5-xxl", d_model=4096, d_ff=10240, num_layers=24, num_heads=64, **_GATED),
    _t5("MT5", "google/mt5-base", d_model=768, d_ff=2048, num_layers=12, num_heads=12),
    _t5("MT5", "google/mt5-large", d_model=1024, d_ff=2816, num_layers=24, num_heads=16),
    Size(
        "facebook/bart-base",
        "BartConfig",
        {
            "d_model": 768,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
        },
        ("BartForConditionalGeneration", "BartModel", "BartForSequenceClassification"),
    ),
    Size(
        "facebook/bart-large-cnn",
        "BartConfig",
        {"vocab_size": 50264},
        ("BartForConditionalGeneration", "BartModel"),
    ),
    Size(
        "sshleifer/distilbart-cnn-12-6",
        "BartConfig",
        {"vocab_size": 50264, "decoder_layers": 6},
        ("BartForConditionalGeneration", "BartModel"),
    ),
    Size(
        "facebook/mbart-large-50",
        "MBartConfig",
        {"vocab_size": 250054},
        ("MBartForConditionalGeneration", "MBartModel"),
    ),
    _whisper("openai/whisper-tiny.en", 384, 4, 6, vocab_size=51864),
    _whisper("openai/whisper-base", 512, 6, 8),
    _whisper("openai/whisper-base.en", 512, 6, 8, vocab_size=51864),
    _whisper("openai/whisper-small", 768, 12, 12),
    _whisper("openai/whisper-small.en", 768, 12, 12, vocab_size=51864),
    _whisper("openai/whisper-medium", 1024, 24, 16),
    _whisper("openai/whisper-medium.en", 1024, 24, 16, vocab_size=51864),
    _whisper("openai/whisper-large-v2", 1280, 32, 20),
    _whisper("openai/whisper-large-v3", 1280, 32, 20, vocab_size=51866, num_mel_bins=128),
    _whisper("openai/whisper-large-v3-turbo", 1280, 32, 20, vocab_size=51866, num_mel_bins=128, decoder_layers=4),
    _whisper("distil-whisper/distil-large-v3", 1280, 32, 20, vocab_size=51866, num_mel_bins=128, decoder_layers=2),
    Size(
        "facebook/wav2vec2-large-960h",
        "Wav2Vec2Config",
        _LARGE,
        ("Wav2Vec2ForCTC", "Wav2Vec2Model", "Wav2Vec2ForSequenceClassification"),
    ),
    Size(
        "facebook/wav2vec2-large-960h-lv60-self",
        "Wav2Vec2Config",
        _SPEECH_LARGE,
        ("Wav2Vec2ForCTC", "Wav2Vec2Model", "Wav2Vec2ForSequenceClassification"),
    ),
    Size(
        "facebook/hubert-large-ls960-ft",
        "HubertConfig",
        _SPEECH_LARGE,
        ("HubertForCTC", "HubertModel", "HubertForSequenceClassification"),
    ),
    _image("ViT", "google/vit-base-patch16-384", image_size=384),
    _image("ViT", "google/vit-base-patch32-384", image_size=384, patch_size=32),
    _image("ViT", "google/vit-large-patch16-224", **_LARGE),
    _image("ViT", "google/vit-large-patch16-384", image_size=384, **_LARGE),
    _image("ViT", "google/vit-large-patch32-384", image_size=384, patch_size=32, **_LARGE),
    Size(
        "google/vit-huge-patch14-224-in21k",
        "ViTConfig",
        {**_sized(1280, 32, 16), "patch_size": 14},
        ("ViTModel", "ViTForImageClassification"),
        classes=1000,
    ),
    _image("ViT", "facebook/deit-tiny-patch16-224", **_sized(192, 12, 3)),
    _image("ViT", "facebook/deit-small-patch16-224", **_sized(384, 12, 6)),
    *(
        Size(
            f"facebook/deit-{name}-distilled-patch16-224",
            "DeiTConfig",
            values,
            ("DeiTForImageClassificationWithTeacher", "DeiTModel", "DeiTForImageClassification"),
            classes=1000,
        )
        for name, values in {"tiny": _sized(192, 12, 3), "small": _sized(384, 12, 6)}.items()
    ),
    *(
        Size(
            f"facebook/dinov2-{name}",
            "Dinov2Config",
            {"image_size": 518, "patch_size": 14, **values},
            ("Dinov2Model", "Dinov2ForImageClassification"),
            classes=1000,
        )
        for name, values in {
            "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
            "base": {},
            "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
            "giant": {
                "hidden_size": 1536,
                "num_hidden_layers": 40,
                "num_attention_heads": 24,
                "use_swiglu_ffn": True,
            },
        }.items()
    ),
    _image("Swin", "microsoft/swin-small-patch4-window7-224", depths=[2, 2, 18, 2]),
    _image(
        "Swin",
        "microsoft/swin-base-patch4-window7-224",
        embed_dim=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
    ),
    _image(
        "Swin",
        "microsoft/swin-base-patch4-window12-384",
        embed_dim=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=12,
        image_size=384,
    ),
    _image(
        "Swin",
        "microsoft/swin-large-patch4-window7-224",
        embed_dim=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
    ),
    _image("ConvNext", "facebook/convnext-small-224", depths=[3, 3, 27, 3]),
    _image("ConvNext", "facebook/convnext-base-224", depths=[3, 3, 27, 3], hidden_sizes=[128, 256, 512, 1024]),
    _image("ConvNext", "facebook/convnext-large-224", depths=[3, 3, 27, 3], hidden_sizes=[192, 384, 768, 1536]),
    _image("ResNet", "microsoft/resnet-18", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"),
    _image("ResNet", "microsoft/resnet-26", depths=[2, 2, 2, 2]),
    _image("ResNet", "microsoft/resnet-34", depths=[3, 4, 6, 3], hidden_sizes=[64, 128, 256, 512], layer_type="basic"),
    _image("ResNet", "microsoft/resnet-101", depths=[3, 4, 23, 3]),
    _image("ResNet", "microsoft/resnet-152", depths=[3, 8, 36, 3]),
    *(
        Size(
            f"nvidia/mit-{name}",
            "SegformerConfig",
            {"hidden_sizes": [64, 128, 320, 512], "depths": depths, "decoder_hidden_size": decoder},
            ("SegformerForImageClassification", "SegformerModel", "SegformerForSemanticSegmentation"),
            classes=1000,
        )
        for name, depths, decoder in (
            ("b1", [2, 2, 2, 2], 256),
            ("b2", [3, 4, 6, 3], 768),
            ("b3", [3, 4, 18, 3], 768),
            ("b4", [3, 8, 27, 3], 768),
            ("b5", [3, 6, 40, 3], 768),
        )
    ),
    Size("openai/clip-vit-base-patch16", "CLIPConfig", {"vision_config": {"patch_size": 16}}, ("CLIPModel",)),
    *(
        Size(
            f"openai/clip-vit-large-patch14{suffix}",
            "CLIPConfig",
            {
                "text_config": _CLIP_LARGE_TEXT,
                "vision_config": {**_CLIP_LARGE_VISION, "image_size": side},
                "projection_dim": 768,
            },
            ("CLIPModel",),
        )
        for suffix, side in (("", 224), ("-336", 336))
    ),
)
"""Sizes beside the default configurations, which are those of a published checkpoint for many types."""

TOWERS: tuple[Size, ...] = (
    Size("openai/clip-vit-base-patch16", "CLIPVisionConfig", {"patch_size": 16}, ("CLIPVisionModel",)),
    Size(
        "openai/clip-vit-large-patch14",
        "CLIPTextConfig",
        _CLIP_LARGE_TEXT,
        ("CLIPTextModel", "CLIPTextModelWithProjection"),
    ),
    Size(
        "openai/clip-vit-large-patch14",
        "CLIPVisionConfig",
        _CLIP_LARGE_VISION,
        ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
    ),
    Size(
        "openai/clip-vit-large-patch14-336",
        "CLIPVisionConfig",
        {**_CLIP_LARGE_VISION, "image_size": 336},
        ("CLIPVisionModel",),
    ),
)
"""Parts of published models, which have no file of their own."""
