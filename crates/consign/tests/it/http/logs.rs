//! The access log: templates of routes, never what gives access.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::app::App;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_capability_and_no_credential_is_ever_logged() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let app = App::new().await;
    let (link, _) = app.link_to("canary-name.txt", b"canary-content", false).await;
    app.get(&link).await;
    app.get(&format!("{link}0")).await;
    let secret =
        json!({"url": "https://h.test/x?token=canary-token", "headers": {"X-Key": "canary-key"}, "filename": {}});
    app.post("/v2/import/url", secret).await.fails(422, "INVALID_DATA");
    let form = app.post("/v2/import/upload", json!({})).await.json()["data"]["result"]["form"].clone();
    app.post(form["url"].as_str().unwrap().trim_start_matches(super::app::URL), json!({})).await;
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("route=\"/files/{task}/{name}\"") && text.contains("status=200"), "{text}");
    let signature = form["parameters"]["X-Amz-Signature"].as_str().unwrap();
    let capability = link.split_once("temp_url_sig=").unwrap().1;
    for hidden in ["canary", "temp_url_sig", &app.key, signature, &capability[..64]] {
        assert!(!text.contains(hidden), "{hidden} is in\n{text}");
    }
}
