"""umT5 embeddings as Wan's pipeline computes them; needs PyTorch and transformers (requirements-text.txt)."""

import shutil
import string

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from wvm_rl.embed import EmbedConfig, main
from wvm_rl.errors import InputError
from wvm_rl.model.text import Umt5TextConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
for needed in ("sentencepiece", "ftfy"):
    pytest.importorskip(needed)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A folder with a small umT5 of random weights and a tokenizer of letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("pipeline")
    letters = [(letter, -3.0) for letter in string.ascii_lowercase]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters, ("▁the", -1.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    sizes = {"vocab_size": len(vocabulary), "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    model = transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes)).eval()
    model.save_pretrained(folder / "text_encoder")
    return folder, fast, model


def test_embeddings_are_those_of_wans_pipeline(pipeline, tmp_path):
    """Wan pads to 512 tokens with a mask, cuts at the length and pads with zeros; spaces are collapsed."""
    folder, tokenizer, model = pipeline
    file, words = tmp_path / "umt5.safetensors", "lift the  red cube"
    main(EmbedConfig([words], str(folder), str(file), "float32"))
    given = tokenizer(["lift the red cube"], padding="max_length", max_length=512, return_tensors="pt")
    with torch.no_grad():
        hidden = model(given.input_ids, given.attention_mask).last_hidden_state[0].numpy()
    count = int(given.attention_mask.sum())
    read = Umt5TextConfig(str(file), tokens=64, width=32).tokenize(words)
    np.testing.assert_allclose(read[:count], hidden[:count], atol=5e-6)
    assert (read[count:] == 0).all() and list(load_file(file)) == [words]
    with pytest.raises(InputError, match="dtype=float32 encoder=pipeline"):
        main(EmbedConfig([words], str(folder), str(file)))


def test_incomplete_or_foreign_encoders_are_refused(pipeline, tmp_path):
    broken = shutil.copytree(pipeline[0], tmp_path / "broken")
    weights = broken / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    lost = {name: value for name, value in tensors.items() if "block.1.layer.1.DenseReluDense.wo" not in name}
    narrow = {name: value[:, :-1] if value.ndim == 2 else value for name, value in tensors.items()}
    for content, message in ((lost, "wo.weight is missing"), (narrow, "cannot be read"), (None, "cannot be read")):
        weights.write_bytes(b"x" * 50) if content is None else save_file(content, weights, metadata={"format": "pt"})
        with pytest.raises(InputError, match=message):
            main(EmbedConfig(["lift"], str(broken), str(tmp_path / "file"), "float32"))
    with pytest.raises(InputError, match="cannot be read"):
        main(EmbedConfig(["lift"], str(tmp_path / "nowhere"), str(tmp_path / "file")))
    assert not (tmp_path / "file").exists()
