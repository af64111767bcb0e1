"""upload_s3.py URL FOLDER: puts the files of a folder into the bucket `bucket` of a store that may still be starting."""
import pathlib
import sys
import time

import boto3
from botocore.config import Config

url, root = sys.argv[1], pathlib.Path(sys.argv[2])
client = boto3.client("s3", endpoint_url=url, config=Config(s3={"addressing_style": "path"}))
deadline = time.monotonic() + 120
while True:
    try:
        client.create_bucket(Bucket="bucket")
        break
    except Exception as error:
        if "BucketAlready" in str(error):
            break
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
for path in sorted(root.rglob("*")):
    if path.is_file():
        client.upload_file(str(path), "bucket", str(path.relative_to(root)))
