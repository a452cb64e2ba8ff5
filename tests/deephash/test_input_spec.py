"""The numbers in a model's header."""

import pytest

from deephash.input_spec import InputSpec


def test_input_spec_round_trip_through_json_types():
    spec = InputSpec(size=32, resize=40, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), interpolation="lanczos")
    values = spec.to_dict()
    assert values["mean"] == [0.1, 0.2, 0.3]
    assert InputSpec.from_dict(values) == spec
    assert hash(InputSpec.from_dict(values)) == hash(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size .* 1 to 4096, not 0"),
        ({"size": "224"}, "size"),
        ({"size": True}, "size"),
        ({"resize": 10**9}, "resize"),
        ({"size": 300}, r"resize \(256\) must not be smaller than size \(300\)"),
        ({"mean": [0.5, 0.5]}, "mean .* three numbers"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean"),
        ({"std": [1, 1, 0]}, "std .* above 0"),
        ({"std": "abc"}, "std"),
        ({"interpolation": "nearest"}, "bilinear, bicubic, lanczos, not 'nearest'"),
        ({"interpolation": ["bicubic"]}, "interpolation"),
        ({"colour": 1}, "unknown fields: colour"),
    ],
)
def test_input_spec_from_a_damaged_header(change, message):
    with pytest.raises(ValueError, match=message):
        InputSpec.from_dict(InputSpec().to_dict() | change)


def test_input_spec_lacking_a_field():
    values = InputSpec().to_dict()
    del values["std"]
    with pytest.raises(ValueError, match="lacks std"):
        InputSpec.from_dict(values)
    with pytest.raises(ValueError, match="mapping"):
        InputSpec.from_dict([1])
