//! Lists: pages, filters, leniencies.

use serde_json::{Value, json};

use super::app::{App, URL};

async fn ids(app: &App, path: &str) -> Vec<String> {
    let page = app.get(path).await.json();
    page["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_have_the_envelope_of_the_contract() {
    let app = App::new().await;
    let empty = app.get("/v2/tasks").await;
    assert_eq!(
        empty.text(),
        format!(
            r#"{{"data":[],"links":{{"first":"{URL}/v2/tasks?page=1","last":null,"prev":null,"next":null}},"meta":{{"current_page":1,"from":null,"path":"{URL}/v2/tasks","per_page":100,"to":null}}}}"#
        )
    );
    let mut made = Vec::new();
    for _ in 0..5 {
        app.clock.advance(std::time::Duration::from_secs(1));
        made.push(app.post("/v2/import/upload", json!({})).await.json()["data"]["id"].as_str().unwrap().to_owned());
    }
    made.reverse();
    let second = app.get("/v2/tasks?per_page=2&page=2&filter[status]=waiting").await.json();
    let query = "per_page=2&filter%5Bstatus%5D=waiting&page=";
    assert_eq!(
        second["links"],
        json!({
            "first": format!("{URL}/v2/tasks?{query}1"),
            "last": null,
            "prev": format!("{URL}/v2/tasks?{query}1"),
            "next": format!("{URL}/v2/tasks?{query}3"),
        })
    );
    assert_eq!(
        second["meta"],
        json!({"current_page": 2, "from": 3, "path": format!("{URL}/v2/tasks"), "per_page": 2, "to": 4})
    );
    assert_eq!(ids(&app, "/v2/tasks").await, made, "newest first");
    assert_eq!(ids(&app, "/v2/tasks?per_page=2&page=3").await, made[4..]);
    let third = app.get("/v2/tasks?per_page=2&page=3").await.json();
    assert_eq!(third["links"]["next"], Value::Null);
    for odd in
        ["page=0", "page=-1", "page=x&per_page=", "per_page=0", "per_page=99999999999", "page=4294967295&per_page=1"]
    {
        assert_eq!(app.get(&format!("/v2/tasks?{odd}")).await.status, 200, "{odd}");
    }
}

#[tokio::test]
async fn filters_are_raw_or_encoded_and_empty_ones_are_none() {
    let app = App::new().await;
    let (job, import, export) = app.small_job().await;
    let upload = app.post("/v2/import/upload", json!({})).await.json()["data"]["id"].as_str().unwrap().to_owned();
    app.request("POST", &format!("/v2/tasks/{upload}/cancel")).send().await;
    let (import, export) = (import.to_string(), export.to_string());
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let all = sorted(vec![import.clone(), export.clone(), upload.clone()]);
    assert_eq!(
        sorted(
            ids(&app, "/v2/tasks?filter[status]=&filter[job_id]=&filter[operation]=&include=&per_page=&page=").await
        ),
        all
    );
    assert_eq!(ids(&app, "/v2/tasks?filter%5Bstatus%5D=error").await, [upload.as_str()]);
    assert_eq!(ids(&app, "/v2/tasks?filter[operation]=export/url&filter[job_id]=").await, [export.as_str()]);
    assert_eq!(sorted(ids(&app, &format!("/v2/tasks?filter[job_id]={job}")).await), sorted(vec![import, export]));
    assert!(ids(&app, "/v2/tasks?filter[job_id]=x").await.is_empty());
    app.get("/v2/tasks?filter[status]=done").await.fails(422, "INVALID_DATA");
    app.get("/v2/jobs?filter[tag]=a%00").await.fails(400, "BAD_REQUEST");
    app.get("/v2/jobs?filter[status]=done").await.fails(422, "INVALID_DATA");
}

#[tokio::test]
async fn jobs_are_listed_without_tasks_unless_asked_for() {
    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    let bare = app.get("/v2/jobs").await.json()["data"][0].clone();
    assert_eq!(bare["id"], job);
    assert!(bare.get("tasks").is_none());
    let full = app.get("/v2/jobs?include=tasks").await.json()["data"][0].clone();
    assert_eq!(full["tasks"].as_array().unwrap().len(), 2);
    assert_eq!(full, app.get(&format!("/v2/jobs/{job}")).await.json()["data"]);
    assert_eq!(ids(&app, "/v2/jobs?filter[tag]=small&filter[status]=waiting").await, [job.as_str()]);
    assert!(ids(&app, "/v2/jobs?filter[tag]=other").await.is_empty());
    assert!(ids(&app, "/v2/jobs?filter[status]=finished").await.is_empty());
    assert_eq!(ids(&app, &format!("/v2/jobs?filter[access_token]={}", app.key)).await, [job.as_str()]);
    let page = app.get(&format!("/v2/jobs?filter[access_token]={}", app.key)).await;
    assert!(!page.text().contains(&app.key), "the token comes back in the links");
    let first = page.json()["links"]["first"].as_str().unwrap().split_once("/v2/").unwrap().1.to_owned();
    assert_eq!(ids(&app, &format!("/v2/{first}")).await, [job.as_str()], "the links keep the filter");
    let unknown = app.get("/v2/jobs?filter[access_token]=nonsense").await;
    assert!(unknown.json()["data"].as_array().unwrap().is_empty() && !unknown.text().contains("nonsense"));
}
