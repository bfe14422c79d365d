//! Download links: signatures, ranges, conditions, headers, death.

use std::time::Duration;

use consign::model::{Download, File};

use super::app::{App, URL};

#[tokio::test]
async fn a_link_gives_the_file_with_all_its_marks() {
    let app = App::new().await;
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (link, _) = app.link_to("my photo é.png", &content, false).await;
    let reply = app.request("GET", &link).anonymous().send().await;
    assert_eq!(reply.status, 200);
    assert!(reply.body == content);
    assert_eq!(reply.header("content-type"), "image/png");
    assert_eq!(reply.header("content-length"), "1000000");
    assert_eq!(
        reply.header("content-disposition"),
        "attachment; filename=\"my photo _.png\"; filename*=UTF-8''my%20photo%20%C3%A9.png"
    );
    assert_eq!(reply.header("accept-ranges"), "bytes");
    assert_eq!(reply.header("last-modified"), "Mon, 05 Jan 2026 09:00:00 GMT");
    assert_eq!((reply.header("etag").len(), reply.header("x-content-type-options")), (34, "nosniff"));
    let head = app.request("HEAD", &link).anonymous().send().await;
    assert_eq!((head.status.as_u16(), head.body.len(), head.header("content-length")), (200, 0, "1000000"));
    let mut headers = [reply.headers.clone(), head.headers];
    let ids = headers.each_mut().map(|headers| headers.remove("x-request-id").expect("each request has an id"));
    assert_ne!(ids[0], ids[1]);
    assert_eq!(headers[0], headers[1]);

    let part = app.request("GET", &link).header("range", "bytes=300000-799999").send().await;
    assert_eq!((part.status.as_u16(), part.header("content-range")), (206, "bytes 300000-799999/1000000"));
    assert!(part.body == content[300_000..800_000]);
    let outside = app.request("GET", &link).header("range", "bytes=1000000-").send().await;
    outside.fails(416, "RANGE_NOT_SATISFIABLE");
    assert_eq!(outside.header("content-range"), "bytes */1000000");
    let same = app.request("GET", &link).header("if-none-match", reply.header("etag")).send().await;
    assert_eq!((same.status.as_u16(), same.body.len(), same.header("etag")), (304, 0, reply.header("etag")));
    assert_eq!(same.header("content-type"), "");
    app.request("GET", &link).header("if-match", "\"x\"").send().await.fails(412, "PRECONDITION_FAILED");
}

#[tokio::test]
async fn a_link_that_was_changed_in_any_way_gives_nothing() {
    let app = App::new().await;
    let (link, _) = app.link_to("a b.txt", b"hello", false).await;
    let (other, _) = app.link_to("a b.txt", b"other", false).await;
    let (path, query) = link.split_once('?').unwrap();
    let (signature, expires) = query.split_once('&').unwrap();
    let other_path = other.split_once('?').unwrap().0;
    for changed in [
        path.to_owned(),
        format!("{path}?{signature}"),
        format!("{path}?{expires}"),
        format!("{path}?{signature}0&{expires}"),
        format!("{path}?{signature}&{expires}0"),
        format!("{path}?{signature}&temp_url_expires=99999999999"),
        format!("{path}?temp_url_sig={}&{expires}", "0".repeat(64)),
        format!("{path}?temp_url_sig=&{expires}"),
        format!("{path}x?{query}"),
        format!("{other_path}?{query}"),
    ] {
        app.get(&changed).await.fails(403, "LINK_INVALID");
    }
    for same in [
        format!("{path}?{expires}&{signature}"),
        format!("{}?{query}&utm=x", path.replace("a%20b", "%61%20b")),
        format!("{path}?{}", query.replace("temp_url_sig", "temp%5Furl%5Fsig")),
    ] {
        assert_eq!(app.get(&same).await.text(), "hello", "checked on decoded values: {same}");
    }
    app.get(&path.replace("/files/", "/files/x")).await.fails(404, "NOT_FOUND");
}

#[tokio::test]
async fn each_of_several_files_has_a_link_of_its_own() {
    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    app.run_one().await;
    let export = app.claim().await;
    let expires_at = app.clock.now().plus(Duration::from_hours(24));
    let download = Some(Download { inline: false, expires_at });
    let mut files = Vec::new();
    for (number, content) in [(1, "first"), (2, "second"), (3, "third")] {
        // The same name, so that only the number and the signature tell them apart.
        files.push(File { download, ..app.keep(&export, number, "a.txt", content.as_bytes()).await });
    }
    app.finish(&export, &files).await;
    let job = app.get(&format!("/v2/jobs/{job}")).await.json();
    let link =
        |at: usize| job["data"]["tasks"][1]["result"]["files"][at]["url"].as_str().unwrap()[URL.len()..].to_owned();
    for (at, content) in ["first", "second", "third"].into_iter().enumerate() {
        assert_eq!(app.get(&link(at)).await.text(), content);
    }
    let second = link(1);
    let (without, number) = second.rsplit_once('&').unwrap();
    assert_eq!(number, "temp_url_number=2");
    for changed in [
        "",
        "&temp_url_number=",
        "&temp_url_number=0",
        "&temp_url_number=1",
        "&temp_url_number=3",
        "&temp_url_number=4",
        "&temp_url_number=-2",
        "&temp_url_number=99999999999999999999",
    ] {
        app.get(&format!("{without}{changed}")).await.fails(403, "LINK_INVALID");
    }
}

#[tokio::test]
async fn a_link_dies_by_time_and_at_once_with_its_task() {
    let app = App::new().await;
    let (link, _) = app.link_to("a.txt", b"hello", false).await;
    let (doomed, export) = app.link_to("b.txt", b"hello", false).await;
    app.clock.advance(Duration::from_hours(24) - Duration::from_secs(1));
    assert_eq!(app.get(&link).await.status, 200);
    assert_eq!(app.get(&doomed).await.status, 200);
    app.request("DELETE", &format!("/v2/tasks/{export}")).send().await;
    app.get(&doomed).await.fails(404, "NOT_FOUND");
    app.clock.advance(Duration::from_secs(1));
    app.get(&link).await.fails(403, "LINK_INVALID");
}

#[tokio::test]
async fn what_a_browser_shows_in_place_cannot_run_scripts() {
    let app = App::new().await;
    for (name, sandboxed) in [("a.html", true), ("a.svg", true), ("a.xml", true), ("a.png", false), ("a.pdf", false)] {
        let (link, _) = app.link_to(name, b"<script>", true).await;
        let reply = app.get(&link).await;
        assert_eq!(reply.header("content-disposition"), format!("inline; filename=\"{name}\""));
        assert_eq!(reply.header("content-security-policy").starts_with("sandbox"), sandboxed, "{name}");
    }
    let (link, _) = app.link_to("a.html", b"<script>", false).await;
    assert!(app.get(&link).await.header("content-disposition").starts_with("attachment"));
}

#[tokio::test]
async fn empty_files_have_no_ranges() {
    let app = App::new().await;
    let (link, _) = app.link_to("empty", b"", false).await;
    let reply = app.get(&link).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-length")), (200, "0"));
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    app.request("GET", &link).header("range", "bytes=0-").send().await.fails(416, "RANGE_NOT_SATISFIABLE");
}

#[tokio::test]
async fn a_content_type_cannot_smuggle_in_another() {
    let app = App::new().await;
    for (told, sent) in [
        ("image/png, text/html", "application/octet-stream"),
        ("image/png,text/html;charset=utf-8", "application/octet-stream"),
        ("image/png", "image/png"),
    ] {
        let (url, ..) = app.link_to_typed("a.png", b"<script>", true, told).await;
        let reply = app.request("GET", &url).anonymous().send().await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, sent));
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
    let (url, ..) = app.link_to_typed("a.html", b"<script>", true, "text/html").await;
    let reply = app.request("GET", &url).anonymous().send().await;
    assert!(reply.header("content-security-policy").starts_with("sandbox;"), "scripts may run");
}
