//! Whether what was written has arrived everywhere: the control plane has read it, and every proxy serves it. From the
//! control plane's own status page.

use serde_json::Value;

/// What is still under way, according to `status`, when the control plane should have read `files` files and serve
/// `proxies` proxies; `None` when nothing is.
pub(super) fn pending(status: &[u8], files: usize, proxies: usize) -> Option<String> {
    let Ok(status) = serde_json::from_slice::<Value>(status) else {
        return Some("the control plane's status cannot be read".to_owned());
    };
    if status["config"]["files"].as_u64() != Some(files as u64) {
        return Some("the control plane has not read all files yet".to_owned());
    }
    let connected = status["proxies"].as_array().map_or(&[][..], Vec::as_slice);
    if connected.len() < proxies {
        return Some(format!("{} of {proxies} proxies are connected to the control plane", connected.len()));
    }
    let is_behind = |proxy: &&Value| {
        // One that refuses something will not get further by waiting, and the control plane has told why.
        let refuses = proxy["rejections"].as_array().is_some_and(|rejections| !rejections.is_empty());
        !refuses && proxy["served_revision"].as_u64() < status["revision"].as_u64()
    };
    let behind = connected.iter().find(is_behind)?;
    let id = behind["id"].as_str().unwrap_or("a proxy");
    Some(format!("{} does not serve the newest configuration yet", id.split('~').nth(2).unwrap_or(id)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn everyone_must_have_read_connected_and_served() {
        let proxy = |served: u64, rejections: Value| json!({"id": "sidecar~127.0.0.9~a-0.default~x", "served_revision": served, "rejections": rejections});
        let told = |files: u64, proxies: Vec<Value>| {
            let status = json!({"revision": 7, "config": {"files": files}, "proxies": proxies});
            pending(status.to_string().as_bytes(), 3, 1).unwrap_or_default()
        };
        assert_eq!(told(3, vec![proxy(7, json!([]))]), "");
        assert_eq!(told(2, vec![proxy(7, json!([]))]), "the control plane has not read all files yet");
        assert_eq!(told(3, vec![]), "0 of 1 proxies are connected to the control plane");
        let behind = told(3, vec![proxy(7, json!([])), proxy(6, json!([]))]);
        assert_eq!(behind, "a-0.default does not serve the newest configuration yet");
        assert_eq!(told(3, vec![proxy(6, json!([{"type": "Listener"}]))]), "");
        assert!(pending(b"nonsense", 0, 0).is_some());
    }
}
