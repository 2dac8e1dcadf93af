"""The programs that are compared, each doing the same work: it adds x-request-id, x-forwarded-for and -proto, keeps
connections to the backend open and counts requests. Access logs are off unless a profile asks for them."""

import os
import shutil
import subprocess
from pathlib import Path

from . import envoy_config as envoy
from .process import Process, fetch, free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
IEUM = Path(os.environ.get("IEUM", ROOT / "target" / "release" / "ieum"))
ENVOY = ROOT / ".peers" / "venv" / "bin" / "envoy"


def versions():
    """Name to version of each program."""
    def first_line(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout or done.stderr).strip().splitlines()[0]
    return {
        "ieum": first_line(IEUM, "--version"), "envoy": first_line(ENVOY, "--version").split("version: ")[-1],
        "nginx": first_line("nginx", "-v"), "haproxy": first_line("haproxy", "-v"),
        "wrk": first_line("wrk", "--version"), "h2load": first_line("h2load", "--version"),
    }


def missing():
    """What has to be installed first."""
    wanted = {"envoy": ENVOY.exists(), "ieum (release build)": IEUM.exists()}
    wanted |= {name: bool(shutil.which(name)) for name in ("nginx", "haproxy", "wrk", "h2load", "nghttpd", "taskset", "openssl")}
    return [name for name, found in wanted.items() if not found]


def as_root():
    """nginx started by root would drop to a user that cannot read a run's folder."""
    return "user root;" if os.getuid() == 0 else ""


def start_envoy(config, port, admin, cpu, folder, name="envoy"):
    path = envoy.write(folder / f"{name}.json", config)
    base_id = port  # any number no other Envoy of this machine uses
    command = [ENVOY, "-c", path, "--concurrency", "1", "--base-id", base_id, "-l", "error"]
    process = Process(name, command, cpu, folder).listens(port)
    wait_for(lambda: fetch(f"http://127.0.0.1:{admin}/ready") is not None, f"{name} is not ready")
    return process


def start_ieum(config, port, admin, cpu, folder, name="ieum"):
    path = envoy.write(folder / f"{name}.json", config)
    state = folder / f"{name}-state"
    process = Process(name, [IEUM, "proxy", "--bootstrap", path, "--concurrency", "1", "--state-dir", state], cpu, folder)
    process.listens(port)
    wait_for(lambda: (fetch(f"http://127.0.0.1:{admin}/ready") or (0,))[0] == 200, f"{name} is not ready")
    return process


# Bodies that are larger than a response buffer go through memory, as in the other programs, and never through a file.
NGINX_BULK = "proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0;"
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def nginx_scratch(folder, name):
    """Where nginx may write; it insists on all of them."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder}/{name}-{kind};" for kind in kinds)


def start_nginx(port, backend, cpu, folder, name="nginx", bulk=False):
    path = folder / f"{name}.conf"
    path.write_text(f"""
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err; {as_root()}
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; {nginx_scratch(folder, name)}
  {NGINX_BULK if bulk else ""}
  upstream app {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} reuseport backlog=4096;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header X-Request-ID $request_id; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
    location = /nginx-status {{ stub_status; }}
  }}
}}
""")
    return Process(name, ["nginx", "-p", folder, "-c", path], cpu, folder).listens(port)


def start_nginx_tcp(port, backend, cpu, folder, name="nginx-tcp"):
    """nginx as a TCP proxy; its module for that is a package of its own on Debian."""
    path = folder / f"{name}.conf"
    path.write_text(f"""
load_module {NGINX_STREAM};
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err; {as_root()}
events {{ worker_connections 16384; }}
stream {{
  server {{
    listen 127.0.0.1:{port} reuseport backlog=4096;
    proxy_pass 127.0.0.1:{backend}; proxy_buffer_size 64k;
  }}
}}
""")
    return Process(name, ["nginx", "-p", folder, "-c", path], cpu, folder).listens(port)


def start_haproxy(port, backend, cpu, folder, name="haproxy"):
    path = folder / f"{name}.cfg"
    path.write_text(f"""
global
  maxconn 8000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  option forwardfor
  unique-id-format %[uuid()]
  unique-id-header x-request-id
  http-request set-header x-forwarded-proto http
  default_backend app
backend app
  server one 127.0.0.1:{backend} pool-max-conn -1
""")
    return Process(name, ["haproxy", "-db", "-f", path], cpu, folder).listens(port)


def start_haproxy_tcp(port, backend, cpu, folder, name="haproxy-tcp"):
    """HAProxy as a TCP proxy, allowed to let the kernel splice; a pipe takes two files more for each connection."""
    path = folder / f"{name}.cfg"
    path.write_text(f"""
global
  maxconn 1000
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  option splice-auto
listen in
  bind 127.0.0.1:{port}
  server one 127.0.0.1:{backend}
""")
    return Process(name, ["haproxy", "-db", "-f", path], cpu, folder).listens(port)


def start_backend(cpu, folder, body_bytes=100, name="backend"):
    """nginx answering every path from memory; /64k and /1m with bodies of that size. Speaks HTTP/1.1."""
    port = free_port()
    for size, label in ((64 * 1024, "64k"), (1024 * 1024, "1m")):
        (folder / label).write_bytes(b"x" * size)
    path = folder / f"{name}.conf"
    path.write_text(f"""
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err; {as_root()}
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; sendfile on; open_file_cache max=10;
  {nginx_scratch(folder, name)}
  server {{
    listen 127.0.0.1:{port} reuseport backlog=4096;
    location / {{ return 200 "{'x' * body_bytes}"; }}
    location = /64k {{ root {folder}; }}
    location = /1m {{ root {folder}; }}
  }}
}}
""")
    process = Process(name, ["nginx", "-p", folder, "-c", path], cpu, folder).listens(port)
    return process, port


def start_backend_http2(cpu, folder, name="backend-h2"):
    """nghttpd with one file of 100 bytes."""
    port = free_port()
    root = folder / "h2root"
    root.mkdir(exist_ok=True)
    (root / "index.html").write_bytes(b"x" * 100)
    command = ["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", root, "-n1", "-m", "1000", port]
    return Process(name, command, cpu, folder).listens(port), port


def make_certificates(folder):
    """A P-256 authority and one leaf that serves and connects, by openssl."""
    def run(*command):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    ca, ca_key, leaf, key, csr = (folder / n for n in ("ca.pem", "ca.key", "leaf.pem", "leaf.key", "leaf.csr"))
    if leaf.exists():
        return leaf, key, ca
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run("req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=bench root",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    run("req", *curve, "-keyout", key, "-out", csr, "-subj", "/CN=bench")
    extensions = folder / "leaf.ext"
    extensions.write_text("subjectAltName=DNS:bench.local,URI:spiffe://cluster.local/ns/default/sa/bench\n"
                          "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
    run("x509", "-req", "-in", csr, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-out", leaf,
        "-extfile", extensions)
    return leaf, key, ca
