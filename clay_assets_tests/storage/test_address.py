"""Addresses and options that a store accepts or refuses."""

import pytest

from clay_assets.storage import (
    Misconfigured,
    S3Options,
    Store,
)

SECRET = "a-secret/that-must-not/be+shown"  # noqa: S105 - only parsed


@pytest.mark.parametrize(
    ("uri", "phrase"),
    [
        ("", r"got nothing"),
        ("ftp://bucket/chips", r"folder .* or s3://, gs:// or az://bucket/prefix; got scheme ftp://"),
        ("file:///data/chips", r"without file://"),
        ("s3a://bucket/chips", r"got scheme s3a://"),
        ("s3://", r"got '' as the bucket's name"),
        ("gs://", r"got '' as the bucket's name; expected gs://bucket"),
        ("s3:///chips", r"got '' as the bucket's name"),
        ("s3://my bucket/chips", r"got 'my bucket' as the bucket's name"),
        (f"s3://key:{SECRET}@bucket/chips", r"holds credentials"),
        (f"az://key:{SECRET}@container/chips", r"holds credentials"),
        (f"s3://key:{SECRET}", r"holds credentials"),
        (f"s3://my key/{SECRET}@bucket/chips", r"holds credentials"),
    ],
)
def test_an_invalid_address_is_refused_with_the_valid_forms(uri: str, phrase: str) -> None:
    with pytest.raises(Misconfigured, match=phrase) as raised:
        Store(uri)

    assert raised.value.systemic
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize("end", ["", "/", "//"])
def test_trailing_slashes_of_an_address_are_ignored(scheme: str, end: str) -> None:
    assert Store(f"{scheme}://chips{end}").uri == f"{scheme}://chips"
    assert Store(f"{scheme}://chips{end}").url("a.tif") == f"{scheme}://chips/a.tif"


def test_fewer_than_one_attempt_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"got 0; expected at least 1"):
        S3Options(max_attempts=0)
