"""Architectures of `transformers` with small configurations and random weights, each built by the function of its name.

`edgekit export transformers_models.py:bert` calls `bert()`. `bert_full` has the configuration's own defaults, which are
those of a published model.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """An architecture: names of classes in `transformers`, and a small configuration.

    Attributes:
        config: The class of the configuration.
        model: The class of the model.
        small: Settings of the configuration.
        inputs: The inputs by name: `(kind, *shape)` without the batch, where the kind is `image`, `audio`, `features`,
            `ids`, `ids_with_end`, `mask`, `full_mask`, `types` or `series`.
        full: Shapes of inputs at the full size, where they differ.
    """

    config: str
    model: str
    small: dict[str, Any]
    inputs: dict[str, tuple[Any, ...]]
    full: dict[str, tuple[Any, ...]] = field(default_factory=dict)


_TEXT = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip
_IDS = {"input_ids": ("ids", 16), "attention_mask": ("mask", 16)}
_VISION = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64,
}  # fmt: skip
_IMAGE = {"pixel_values": ("image", 3, 32, 32)}
_LARGER_IMAGE = {"pixel_values": ("image", 3, 64, 64)}
_AUDIO = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 32,
    "conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
_DECODER = {
    **_TEXT, "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("BertConfig", "BertModel", _TEXT, {**_IDS, "token_type_ids": ("types", 16)}),
    "bert_classifier": Architecture("BertConfig", "BertForSequenceClassification", _TEXT, _IDS),
    "bert_mlm": Architecture("BertConfig", "BertForMaskedLM", _TEXT, _IDS),
    "bert_qa": Architecture("BertConfig", "BertForQuestionAnswering", _TEXT, _IDS),
    "distilbert": Architecture(
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64},
        _IDS,
    ),
    "mobilebert": Architecture(
        "MobileBertConfig",
        "MobileBertForSequenceClassification",
        {**_TEXT, "embedding_size": 16, "intra_bottleneck_size": 32, "hidden_size": 64, "intermediate_size": 64},
        _IDS,
    ),
    "albert": Architecture("AlbertConfig", "AlbertModel", {**_TEXT, "embedding_size": 16}, _IDS),
    "roberta": Architecture("RobertaConfig", "RobertaForTokenClassification", _TEXT, _IDS),
    "electra": Architecture(
        "ElectraConfig", "ElectraForSequenceClassification", {**_TEXT, "embedding_size": 16}, _IDS
    ),
    "deberta_v2": Architecture(
        "DebertaV2Config",
        "DebertaV2ForSequenceClassification",
        {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": 32},
        _IDS,
    ),
    "gpt2": Architecture(
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": 100, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2},
        {"input_ids": ("ids", 16)},
    ),
    "gpt2_masked": Architecture(
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": 100, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2},
        _IDS,
    ),
    "llama": Architecture("LlamaConfig", "LlamaForCausalLM", _DECODER, _IDS),
    "qwen2": Architecture("Qwen2Config", "Qwen2ForCausalLM", _DECODER, {"input_ids": ("ids", 16)}),
    "gemma": Architecture("GemmaConfig", "GemmaForCausalLM", _DECODER, {"input_ids": ("ids", 16)}),
    "t5_encoder": Architecture(
        "T5Config",
        "T5EncoderModel",
        {"vocab_size": 100, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
        _IDS,
    ),
    "t5": Architecture(
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": 100, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
        {**_IDS, "decoder_input_ids": ("ids", 8)},
    ),
    "bart": Architecture(
        "BartConfig",
        "BartForSequenceClassification",
        {
            "vocab_size": 100, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
            "eos_token_id": 99,
        },
        {"input_ids": ("ids_with_end", 16), "attention_mask": ("full_mask", 16)},
    ),
    "vit": Architecture("ViTConfig", "ViTForImageClassification", _VISION, _IMAGE),
    "deit": Architecture("DeiTConfig", "DeiTForImageClassificationWithTeacher", _VISION, _IMAGE),
    "dinov2": Architecture("Dinov2Config", "Dinov2Model", _VISION, _IMAGE),
    "mobilevit": Architecture(
        "MobileViTConfig",
        "MobileViTForImageClassification",
        {
            "image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
            "num_attention_heads": 2,
        },
        _LARGER_IMAGE,
    ),
    "mobilenet_v2": Architecture(
        "MobileNetV2Config", "MobileNetV2ForImageClassification", {"depth_multiplier": 0.35}, _LARGER_IMAGE
    ),
    "resnet": Architecture(
        "ResNetConfig",
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        _LARGER_IMAGE,
    ),
    "regnet": Architecture(
        "RegNetConfig",
        "RegNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "groups_width": 8},
        _LARGER_IMAGE,
    ),
    "efficientnet": Architecture(
        "EfficientNetConfig",
        "EfficientNetForImageClassification",
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
        _LARGER_IMAGE,
    ),
    "swin": Architecture(
        "SwinConfig",
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
        _IMAGE,
    ),
    "convnext": Architecture(
        "ConvNextConfig",
        "ConvNextForImageClassification",
        {"image_size": 64, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        _LARGER_IMAGE,
    ),
    "segformer": Architecture(
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        {
            "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4],
            "decoder_hidden_size": 32,
        },
        _LARGER_IMAGE,
    ),
    "pvt_v2": Architecture(
        "PvtV2Config",
        "PvtV2ForImageClassification",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]},
        _LARGER_IMAGE,
    ),
    "detr": Architecture(
        "DetrConfig",
        "DetrForObjectDetection",
        {
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 5,
            "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
            "backbone_config": {
                "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1],
                "out_features": ["stage4"],
            },
        },
        _LARGER_IMAGE,
    ),
    "yolos": Architecture(
        "YolosConfig",
        "YolosForObjectDetection",
        {**_VISION, "image_size": [32, 32], "num_detection_tokens": 5},
        _IMAGE,
    ),
    "dpt": Architecture(
        "DPTConfig",
        "DPTForDepthEstimation",
        {
            **_VISION, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 16, 24, 32], "fusion_hidden_size": 16, "is_hybrid": False,
        },
        _IMAGE,
    ),
    "whisper_encoder": Architecture(
        "WhisperConfig",
        "WhisperEncoder",
        {
            "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
            "num_mel_bins": 16, "max_source_positions": 20,
        },
        {"input_features": ("features", 16, 40)},
    ),
    "whisper": Architecture(
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {
            "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
            "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "vocab_size": 100,
            "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 16, "pad_token_id": 0,
            "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        },
        {"input_features": ("features", 16, 40), "decoder_input_ids": ("ids", 6)},
    ),
    "wav2vec2": Architecture("Wav2Vec2Config", "Wav2Vec2ForCTC", _AUDIO, {"input_values": ("audio", 800)}),
    "hubert": Architecture("HubertConfig", "HubertModel", _AUDIO, {"input_values": ("audio", 800)}),
    "ast": Architecture(
        "ASTConfig",
        "ASTForAudioClassification",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "patch_size": 8, "frequency_stride": 8, "time_stride": 8, "max_length": 32, "num_mel_bins": 16,
        },
        {"input_values": ("features", 32, 16)},
    ),
    "clip": Architecture(
        "CLIPConfig",
        "CLIPModel",
        {
            "text_config": {**_TEXT, "eos_token_id": 99, "bos_token_id": 98, "pad_token_id": 0},
            "vision_config": _VISION,
            "projection_dim": 16,
        },
        {"input_ids": ("ids_with_end", 16), "pixel_values": ("image", 3, 32, 32), "attention_mask": ("mask", 16)},
    ),
    "clip_vision": Architecture("CLIPVisionConfig", "CLIPVisionModelWithProjection", _VISION, _IMAGE),
    "siglip": Architecture("SiglipVisionConfig", "SiglipVisionModel", _VISION, _IMAGE),
    "sew": Architecture(
        "SEWConfig",
        "SEWModel",
        {**_AUDIO, "squeeze_factor": 2},
        {"input_values": ("audio", 800)},
    ),
    "mamba": Architecture(
        "MambaConfig",
        "MambaForCausalLM",
        {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "use_mambapy": False},
        {"input_ids": ("ids", 6)},
    ),
    "time_series": Architecture(
        "PatchTSTConfig",
        "PatchTSTForPrediction",
        {
            "num_input_channels": 3, "context_length": 32, "prediction_length": 8, "patch_length": 8,
            "patch_stride": 8, "d_model": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
        },
        {"past_values": ("series", 32, 3)},
    ),
}  # fmt: skip


def _builder(architecture: Architecture, settings: dict[str, Any]) -> Callable[[], Any]:
    def build() -> Any:
        import torch
        import transformers

        torch.manual_seed(0)
        config_class = getattr(transformers, architecture.config)
        # Some parts, such as Whisper's encoder, are only in the module of their architecture.
        modeling = importlib.import_module(config_class.__module__.replace("configuration", "modeling"))
        model = getattr(modeling, architecture.model)(config_class(**settings)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                # With weights as small as a training starts with, outputs hardly depend on the input.
                if parameter.dim() > 1:
                    torch.nn.init.normal_(parameter, std=(0.7 / parameter[0].numel()) ** 0.5)
            _fit_batch_norms(model, architecture)
        return model

    return build


def _fit_batch_norms(model: Any, architecture: Architecture) -> None:
    """Let batch norms take the statistics of random images, so that no signal dies on its way through the layers."""
    import torch

    norms = [part for part in model.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    ((name, (_, *shape)),) = architecture.inputs.items()
    model(**{name: torch.randn(8, *shape)})
    model.eval()


for _name, _architecture in ARCHITECTURES.items():
    globals()[_name] = _builder(_architecture, _architecture.small)
    globals()[f"{_name}_full"] = _builder(_architecture, {})
