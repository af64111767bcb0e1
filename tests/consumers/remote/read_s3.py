"""read_s3.py ENDPOINT FOLDER: boto3 reads what `serve` answers, and finds the bytes of a folder."""
import pathlib
import sys

import boto3
from botocore.exceptions import ClientError

endpoint, here = sys.argv[1], pathlib.Path(sys.argv[2])
client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="any", aws_secret_access_key="key", region_name="us-east-1")
assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["view"]
pages = client.get_paginator("list_objects_v2").paginate(Bucket="view", PaginationConfig={"PageSize": 2})
listed = {item["Key"]: item for page in pages for item in page["Contents"]}
assert set(listed) == {f"step-10/{path.name}" for path in here.iterdir()}
for key, item in listed.items():
    data = (here / key.split("/")[1]).read_bytes()
    assert item["Size"] == len(data)
    assert client.get_object(Bucket="view", Key=key, IfMatch=item["ETag"])["Body"].read() == data
weights = (here / "model.safetensors").read_bytes()
part = client.get_object(Bucket="view", Key="latest/model.safetensors", Range="bytes=8-107")
assert part["Body"].read() == weights[8:108] and part["ContentRange"] == f"bytes 8-107/{len(weights)}"
for arguments, status in [({"Range": f"bytes={len(weights)}-"}, 416), ({"IfMatch": '"other"'}, 412)]:
    try:
        client.get_object(Bucket="view", Key="latest/model.safetensors", **arguments)
        raise AssertionError(arguments)
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
common = client.list_objects_v2(Bucket="view", Delimiter="/")["CommonPrefixes"]
assert [prefix["Prefix"] for prefix in common] == ["step-10/"]
