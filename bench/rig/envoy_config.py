"""Envoy bootstraps. Envoy and Ieum get the same file, but for ports: what is compared is the program."""

import json

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def address(port, host="127.0.0.1"):
    return {"socket_address": {"address": host, "port_value": port}}


def bootstrap(listeners, clusters, admin_port):
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "admin": {"address": address(admin_port)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def cluster(name, port, http2=False, transport=None):
    explicit = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    made = {
        "name": name, "type": "STATIC", "connect_timeout": "5s", "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]},
        "circuit_breakers": {"thresholds": [
            {k: 4294967295 for k in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": OPTIONS, "explicit_http_config": explicit}},
    }
    if transport:
        made["transport_socket"] = transport
    return made


def tcp_cluster(name, port):
    """A cluster for bytes: without options of HTTP."""
    made = cluster(name, port)
    del made["typed_extension_protocol_options"]
    return made


def route(prefix, cluster_name):
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster_name, "timeout": "0s"}}


def manager(routes, edge=True, filters=(), logs=()):
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": HCM, "stat_prefix": "bench", "use_remote_address": edge, "normalize_path": True,
        "access_log": list(logs),
        "route_config": {"name": "bench", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }}


def tcp_proxy(cluster_name):
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "bench", "cluster": cluster_name}}


def listener(name, port, network_filter, transport=None):
    chain = {"filters": [network_filter]}
    if transport:
        chain["transport_socket"] = transport
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def server_tls(cert, key, ca=None, alpn=("h2", "http/1.1")):
    common = {"tls_certificates": [{"certificate_chain": {"filename": str(cert)}, "private_key": {"filename": str(key)}}],
              "alpn_protocols": list(alpn), "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}}
    if ca:
        common["validation_context"] = {"trusted_ca": {"filename": str(ca)}}
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": common, "require_client_certificate": bool(ca)}}


def client_tls(cert, key, ca, sni):
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": sni,
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"filename": str(cert)}, "private_key": {"filename": str(key)}}],
            "validation_context": {"trusted_ca": {"filename": str(ca)}},
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}}}}


def write(path, config):
    path.write_text(json.dumps(config, indent=1))
    return path


def rbac():
    """One ALLOW rule as a mesh would have it: a path, a method and a header that must not be there."""
    rule = {"and_rules": {"rules": [
        {"url_path": {"path": {"prefix": "/service/"}}},
        {"or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": m}}} for m in ("GET", "POST")]}},
        {"not_rule": {"header": {"name": "x-forbidden", "present_match": True}}}]}}
    return {"name": "envoy.filters.http.rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": {"ns[default]-policy[allow]-rule[0]": {
            "permissions": [rule], "principals": [{"any": True}]}}}}}


def standard_metrics():
    """Istio's request metrics. Envoy as its project ships it does not have the filter and skips it, so that it does less."""
    return {"name": "istio.stats", "is_optional": True}


def json_log(path):
    """Istio's JSON access log, in a file."""
    fields = {
        "start_time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%", "response_flags": "%RESPONSE_FLAGS%",
        "response_code_details": "%RESPONSE_CODE_DETAILS%", "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%", "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
        "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "authority": "%REQ(:AUTHORITY)%",
        "upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER%",
        "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%", "route_name": "%ROUTE_NAME%",
    }
    return {"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(path),
        "log_format": {"json_format": fields}}}
