"""Reads object storage as others do: DuckDB with its own httpfs, Spark through a mount, Azure's and Google's plain HTTP.

Usage: object_storage.py WHAT ENDPOINT BUCKET [FOLDER], WHAT one of
s3-download, azure-create, azure-download, google-create, google-download
                copies every object to FOLDER; or makes the bucket
duckdb          prints what the fleet's tables hold, as JSON
spark           the same, read below FOLDER, where the bucket is mounted
"""

import base64
import datetime
import hashlib
import hmac
import json
import os
import pathlib
import sys
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml

WHAT, ENDPOINT, BUCKET = sys.argv[1:4]
FOLDER = pathlib.Path(sys.argv[4]) if len(sys.argv) > 4 else None
BY_NODE = """
    select node, count(*) as statements, count(distinct session_id) as sessions, count(distinct date) as days
    from {} group by node order by node
"""
JOIN = """
    select count(*) as n from {} statements join {} sessions on statements.session_id = sessions.session_id
    where statements.sql like '%fleet%' and sessions.ended_at is not null
"""


def duckdb():
    import duckdb
    import duckdb_extension_httpfs

    package = pathlib.Path(duckdb_extension_httpfs.__file__).parent
    connection = duckdb.connect()
    connection.execute(f"load '{next(package.glob('extensions/*/httpfs.duckdb_extension'))}'")
    host = ENDPOINT.removeprefix("http://")
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    connection.execute(
        f"create secret (type s3, key_id '{key}', secret '{secret}', endpoint '{host}', use_ssl false, url_style 'path',"
        " region 'us-east-1')"
    )
    return connection


def save(name, data):
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def s3_download():
    prefix = f"s3://{BUCKET}/"
    try:
        objects = duckdb().execute(f"select filename, content from read_blob('{prefix}**')").fetchall()
    except Exception as error:
        # A bucket that has no object yet matches no pattern.
        if "No files found" not in str(error) and "404" not in str(error):
            raise
        objects = []
    for name, content in objects:
        save(name.removeprefix(prefix), content)


def google_create():
    request = urllib.request.Request(f"{ENDPOINT}/storage/v1/b?project=test", json.dumps({"name": BUCKET}).encode())
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=30).read()


def google_download():
    found = json.loads(get(f"{ENDPOINT}/storage/v1/b/{BUCKET}/o"))
    for item in found.get("items", []):
        name = urllib.parse.quote(item["name"], safe="")
        save(item["name"], get(f"{ENDPOINT}/storage/v1/b/{BUCKET}/o/{name}?alt=media"))


def azure_create():
    """Shared Key (Authorize with Shared Key, Azure Storage's REST API); the container's blobs are for everybody to read."""
    account, key = os.environ["AZURE_STORAGE_ACCOUNT_NAME"], os.environ["AZURE_STORAGE_ACCOUNT_KEY"]
    date = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-blob-public-access": "container", "x-ms-date": date, "x-ms-version": "2021-08-06"}
    path = urllib.parse.urlparse(f"{ENDPOINT}/{BUCKET}").path
    lines = ["PUT"] + [""] * 11 + [f"{name}:{headers[name]}" for name in sorted(headers)]
    text = "\n".join(lines + [f"/{account}{path}", "restype:container"])
    signature = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)).decode()
    request = urllib.request.Request(f"{ENDPOINT}/{BUCKET}?restype=container", method="PUT", headers=headers)
    request.add_header("Authorization", f"SharedKey {account}:{signature}")
    urllib.request.urlopen(request, timeout=30).read()


def azure_download():
    found = xml.fromstring(get(f"{ENDPOINT}/{BUCKET}?restype=container&comp=list"))
    for name in found.iter("Name"):
        save(name.text, get(f"{ENDPOINT}/{BUCKET}/{urllib.parse.quote(name.text)}"))


def read_by_duckdb():
    connection = duckdb()

    def table(name):
        return f"read_parquet('s3://{BUCKET}/fleet/{name}/*/*.parquet', hive_partitioning = true)"

    rows = connection.execute(BY_NODE.format(table("statements"))).fetchall()
    joined = connection.execute(JOIN.format(table("statements"), table("sessions"))).fetchone()
    print(json.dumps({"nodes": rows, "joined": joined[0]}))


def read_by_spark():
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    for name in ["statements", "sessions"]:
        session.read.parquet(f"file://{FOLDER}/fleet/{name}").createOrReplaceTempView(name)
    rows = [list(row) for row in session.sql(BY_NODE.format("statements")).collect()]
    joined = session.sql(JOIN.format("statements", "sessions")).collect()[0][0]
    print(json.dumps({"nodes": rows, "joined": joined}))
    session.stop()


{
    "s3-download": s3_download,
    "azure-create": azure_create,
    "azure-download": azure_download,
    "google-create": google_create,
    "google-download": google_download,
    "duckdb": read_by_duckdb,
    "spark": read_by_spark,
}[WHAT]()
