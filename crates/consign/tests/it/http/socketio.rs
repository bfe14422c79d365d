//! Socket.IO as clients speak it: both versions of the protocol, both transports, every channel, and what ends a
//! connection.

use std::time::Duration;

use consign::model::Scope;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::app::{App, new_key};

/// How long to wait for a packet, and how long silence must last to be believed.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(200);

/// A client over WebSocket that writes its packets by hand.
struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    /// Opens the transport: version 4 of Engine.IO is that of today's clients, 3 that of old ones.
    async fn open(app: &App, version: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, app.router()).into_future());
        let stream = TcpSocket::new_v4().unwrap().connect(address).await.unwrap();
        let url = format!("ws://{address}/socket.io/?EIO={version}&transport=websocket");
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let mut client = Self { socket };
        let hello = client.next().await.unwrap();
        let hello: Value = serde_json::from_str(hello.strip_prefix('0').unwrap()).unwrap();
        assert_eq!((&hello["pingInterval"], &hello["maxPayload"]), (&json!(25_000), &json!(16_384)));
        client
    }

    /// Opens the transport and the main namespace, as today's clients do.
    async fn connect(app: &App) -> Self {
        let mut client = Self::open(app, 4).await;
        client.say("40").await;
        assert!(client.next().await.unwrap().starts_with("40{\"sid\":\""));
        client
    }

    async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next packet; nothing at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a packet comes, or the end");
            match next?.ok()? {
                // Today's clients are asked whether they are there, old ones ask.
                Message::Text(text) if text.as_str() == "2" => self.say("3").await,
                Message::Text(text) => return Some(text.to_string()),
                Message::Close(_) => return None,
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// The next event: name, channel, data.
    async fn event(&mut self) -> (String, String, Value) {
        let packet = self.next().await.expect("an event comes");
        let said: Value = serde_json::from_str(packet.strip_prefix("42").expect(&packet)).unwrap();
        let text = |at: usize| said[at].as_str().unwrap().to_owned();
        assert_eq!(said.as_array().unwrap().len(), 3);
        (text(0), text(1), said[2].clone())
    }

    async fn subscribe(&mut self, channel: &str, key: &str) {
        let auth = json!({"headers": {"Authorization": format!("Bearer {key}")}});
        self.say(&format!("42{}", json!(["subscribe", {"channel": channel, "auth": auth}]))).await;
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(SILENCE, self.next()).await.is_err()
    }
}

async fn freed(app: &App) {
    for _ in 0..200 {
        if (app.state.live.taken(), app.state.store.hints().waiters()) == (0, 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} seats and {} waiters are left", app.state.live.taken(), app.state.store.hints().waiters());
}

#[tokio::test]
async fn a_late_subscriber_is_told_the_end_at_once() {
    let app = App::new().await;
    let (job, import, export) = app.small_job().await;
    app.run_one().await;
    let claim = app.claim().await;
    app.fail(&claim).await;
    let mut client = Client::connect(&app).await;
    client.subscribe(&format!("private-job.{job}"), &app.key).await;
    let (name, channel, data) = client.event().await;
    assert_eq!((name.as_str(), channel), ("job.failed", format!("private-job.{job}")));
    let shown = app.get(&format!("/v2/jobs/{job}")).await.json()["data"].clone();
    assert_eq!(data, json!({"job": shown}), "the data is what showing the job says");
    for spelling in ["private-job", "private-jobs"] {
        client.subscribe(&format!("{spelling}.{job}.tasks"), &app.key).await;
        for (name, id) in [("task.finished", import), ("task.failed", export)] {
            let (told, channel, data) = client.event().await;
            assert_eq!((told.as_str(), channel), (name, format!("{spelling}.{job}.tasks")));
            assert_eq!(data["task"]["id"], json!(id));
        }
    }
    client.subscribe(&format!("private-task.{export}"), &app.key).await;
    assert_eq!(client.event().await.0, "task.failed");
    assert!(client.is_silent().await);
    drop(client);
    freed(&app).await;
}

#[tokio::test]
async fn every_channel_tells_what_happens() {
    let app = App::new().await;
    let user = app.get("/v2/users/me").await.json()["data"]["id"].clone();
    let mut client = Client::connect(&app).await;
    for of in ["jobs", "tasks"] {
        client.subscribe(&format!("private-user.{user}.{of}"), &app.key).await;
    }
    assert!(client.is_silent().await);
    let (job, import, _) = app.small_job().await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let (name, channel, _) = client.event().await;
        told.push((name, channel.rsplit('.').next().unwrap().to_owned()));
    }
    told.sort();
    let wanted = [("job.created", "jobs"), ("task.created", "tasks"), ("task.created", "tasks")];
    assert_eq!(told, wanted.map(|(name, of)| (name.to_owned(), of.to_owned())));
    for channel in [format!("private-job.{job}"), format!("private-job.{job}.tasks"), format!("private-task.{import}")]
    {
        client.subscribe(&channel, &app.key).await;
    }
    assert!(client.is_silent().await, "nothing has happened yet that is not known");
    let claim = app.claim().await;
    assert_eq!(
        told_by_channel(&mut client, 5).await,
        [
            ("private-job", "job.updated"),
            ("private-job.tasks", "task.updated"),
            ("private-task", "task.updated"),
            ("private-user.jobs", "job.updated"),
            ("private-user.tasks", "task.updated"),
        ]
    );
    app.progress(&claim, 50).await;
    assert_eq!(
        told_by_channel(&mut client, 3).await,
        [
            ("private-job.tasks", "task.updated"),
            ("private-task", "task.updated"),
            ("private-user.tasks", "task.updated"),
        ]
    );
    app.finish(&claim, &[]).await;
    assert_eq!(
        told_by_channel(&mut client, 3).await,
        [
            ("private-job.tasks", "task.finished"),
            ("private-task", "task.finished"),
            ("private-user.tasks", "task.finished"),
        ]
    );
    app.run_one().await;
    assert_eq!(
        told_by_channel(&mut client, 6).await,
        [
            ("private-job", "job.finished"),
            ("private-job.tasks", "task.finished"),
            ("private-job.tasks", "task.updated"),
            ("private-user.jobs", "job.finished"),
            ("private-user.tasks", "task.finished"),
            ("private-user.tasks", "task.updated"),
        ]
    );
    assert!(client.is_silent().await);
}

/// So many events, sorted, with the ids taken out of the channels.
async fn told_by_channel(client: &mut Client, count: usize) -> Vec<(&'static str, &'static str)> {
    let mut told = Vec::new();
    for _ in 0..count {
        let (name, channel, _) = client.event().await;
        let parts: Vec<_> = channel.split('.').collect();
        let channel = [parts[0], parts.get(2).copied().unwrap_or_default()].join(".");
        let channel: &'static str = channel.trim_end_matches('.').to_owned().leak();
        told.push((channel, &*name.leak()));
    }
    told.sort_unstable();
    told
}

#[tokio::test]
async fn the_ends_of_tasks_come_before_that_of_their_job() {
    for _ in 0..10 {
        let app = App::new().await;
        let (job, ..) = app.small_job().await;
        let mut client = Client::connect(&app).await;
        client.subscribe(&format!("private-job.{job}"), &app.key).await;
        client.subscribe(&format!("private-job.{job}.tasks"), &app.key).await;
        assert!(client.is_silent().await);
        let claim = app.claim().await;
        app.fail(&claim).await;
        let mut names = Vec::new();
        while names.last().is_none_or(|name| name != "job.failed") {
            names.push(client.event().await.0);
        }
        assert_eq!(names.iter().filter(|name| *name == "task.failed").count(), 2, "{names:?}");
    }
}

#[tokio::test]
async fn only_the_owner_with_the_right_key_is_told_anything() {
    let app = App::new().await;
    let (job, import, _) = app.small_job().await;
    let user = app.get("/v2/users/me").await.json()["data"]["id"].clone();
    let (other, _) = new_key(&app.state, "eve", &Scope::ALL).await;
    let (blind, _) = new_key(&app.state, "ann", &[Scope::TaskWrite]).await;
    let mut client = Client::connect(&app).await;
    let channels = [
        format!("private-job.{job}"),
        format!("private-job.{job}.tasks"),
        format!("private-task.{import}"),
        format!("private-user.{user}.jobs"),
        format!("private-user.{user}.tasks"),
    ];
    for (key, status) in [(other.as_str(), 404), (blind.as_str(), 403), ("wrong", 401), ("", 401)] {
        for channel in &channels {
            client.subscribe(channel, key).await;
            assert_eq!(client.event().await, ("subscription_error".to_owned(), channel.clone(), json!(status)));
        }
    }
    for channel in
        ["", "private-job", "private-job.1", "public", "private-job.x.tasks.y", &format!("private-job.{import}")]
    {
        client.subscribe(channel, &app.key).await;
        assert_eq!(client.event().await.2, 404, "{channel}");
    }
    client.say(&format!("42{}", json!(["subscribe", {"channel": format!("private-job.{job}")}]))).await;
    assert_eq!(client.event().await.2, 401);
    app.run_small_job().await;
    assert!(client.is_silent().await, "whoever was refused hears nothing");
    client.subscribe(&format!("private-job.{job}"), &app.key).await;
    assert_eq!(client.event().await.0, "job.finished", "the connection is as good as before");
}

#[tokio::test]
async fn who_missed_commits_looks_around() {
    let app = App::new().await;
    let user = app.get("/v2/users/me").await.json()["data"]["id"].clone();
    let mut client = Client::connect(&app).await;
    client.subscribe(&format!("private-user.{user}.jobs"), &app.key).await;
    assert!(client.is_silent().await);
    app.small_job().await;
    assert_eq!(client.event().await.0, "job.created");
    // The follower pauses after that; more commits than are kept for it push what follows out.
    let mut wanted = vec![app.small_job().await.0, app.small_job().await.0];
    for _ in 0..3_000 {
        app.state.store.hints().announce([uuid::Uuid::now_v7()]);
    }
    let mut told = Vec::new();
    for _ in 0..2 {
        let (name, _, data) = client.event().await;
        assert_eq!(name, "job.created");
        told.push(data["job"]["id"].as_str().unwrap().to_owned());
    }
    told.sort();
    wanted.sort();
    assert_eq!(told, wanted);
    assert!(client.is_silent().await, "what was told is not told again");
}

#[tokio::test]
async fn who_unsubscribes_hears_no_more() {
    let app = App::new().await;
    let (job, import, _) = app.small_job().await;
    let mut client = Client::connect(&app).await;
    for channel in [format!("private-job.{job}.tasks"), format!("private-task.{import}")] {
        client.subscribe(&channel, &app.key).await;
    }
    assert!(client.is_silent().await);
    let claim = app.claim().await;
    assert_eq!(told_by_channel(&mut client, 2).await.len(), 2);
    client.say(&format!("42{}", json!(["unsubscribe", {"channel": format!("private-job.{job}.tasks")}]))).await;
    assert!(client.is_silent().await);
    assert_eq!(app.state.store.hints().waiters(), 1);
    app.finish(&claim, &[]).await;
    assert_eq!(client.event().await.1, format!("private-task.{import}"));
    assert!(client.is_silent().await);
}

#[tokio::test]
async fn old_clients_are_understood() {
    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    let mut client = Client::open(&app, 3).await;
    assert_eq!(client.next().await.unwrap(), "40", "the server says hello by itself");
    client.say("2").await;
    assert_eq!(client.next().await.unwrap(), "3", "the client asks whether the server is there");
    client.subscribe(&format!("private-job.{job}"), &app.key).await;
    assert!(client.is_silent().await);
    app.run_small_job().await;
    let names = [client.event().await.0, client.event().await.0];
    assert_eq!(names, ["job.updated", "job.finished"]);
    client.say("40/admin").await;
    assert_eq!(client.next().await.unwrap(), "44/admin,\"Invalid namespace\"");
    client.say("41").await;
    while client.next().await.is_some() {}
    freed(&app).await;
}

#[tokio::test]
async fn polling_does_as_well() {
    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    let path = "/socket.io/?EIO=4&transport=polling";
    let hello = app.request("GET", path).anonymous().send().await;
    assert_eq!((hello.status.as_u16(), hello.header("content-type")), (200, "text/plain; charset=UTF-8"));
    let sid = serde_json::from_str::<Value>(&hello.text()[1..]).unwrap()["sid"].as_str().unwrap().to_owned();
    let path = format!("{path}&sid={sid}");
    let post = async |packet: String| {
        let reply =
            app.request("POST", &path).anonymous().header("content-type", "text/plain").body(packet).send().await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "ok".to_owned()));
    };
    let ask = async || app.request("GET", &path).anonymous().send().await.text();
    // A ping may come at any moment, alone or between other packets.
    let poll = async || {
        loop {
            let told = ask().await;
            let packets: Vec<&str> = told.split('\x1e').filter(|packet| *packet != "2").collect();
            if !packets.is_empty() {
                return packets.join("\x1e");
            }
        }
    };
    post("40".to_owned()).await;
    assert!(poll().await.starts_with("40{\"sid\":"));
    let auth = json!({"headers": {"authorization": format!("bearer {}", app.key)}});
    post(format!("427{}", json!(["subscribe", {"channel": format!("private-job.{job}"), "auth": auth}]))).await;
    assert_eq!(poll().await, "437[]", "who wants to know that it was heard is told");
    let (polled, ()) = tokio::join!(poll(), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        app.run_small_job().await;
    });
    let mut told = polled;
    while !told.contains("job.finished") {
        told.push_str(&poll().await);
    }
    assert_eq!(told.matches("42[\"job.updated\",\"private-job.").count(), 1, "{told}");
    let strange = app.get("/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAHs").await;
    assert_eq!(strange.status, 400);
    assert_eq!(app.get("/socket.io/?EIO=2&transport=polling").await.status, 400);
    post("41".to_owned()).await;
    ask().await;
    freed(&app).await;
}

#[tokio::test]
async fn a_connection_has_bounds() {
    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    let ends = async |mut client: Client| while client.next().await.is_some() {};
    for wrong in ["4".to_owned() + &"x".repeat(20_000), "42[".to_owned(), "42{}".to_owned(), "7".to_owned()] {
        let mut client = Client::connect(&app).await;
        client.say(&wrong).await;
        ends(client).await;
    }
    let mut client = Client::open(&app, 4).await;
    client.subscribe(&format!("private-job.{job}"), &app.key).await;
    ends(client).await;
    let mut client = Client::connect(&app).await;
    client.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    ends(client).await;

    let mut client = Client::connect(&app).await;
    for _ in 0..3 {
        let (another, ..) = app.small_job().await;
        client.subscribe(&format!("private-job.{another}"), &app.key).await;
    }
    let tasks: Vec<Value> = (0..100).map(|_| json!({"operation": "import/upload"})).collect();
    let tasks: Value = tasks.into_iter().enumerate().map(|(n, task)| (format!("t{n}"), task)).collect();
    let large = app.post("/v2/jobs", json!({"tasks": tasks})).await.json()["data"].clone();
    for task in large["tasks"].as_array().unwrap() {
        client.subscribe(&format!("private-task.{}", task["id"].as_str().unwrap()), &app.key).await;
    }
    for _ in 0..3 {
        let (name, _, status) = client.event().await;
        assert_eq!((name.as_str(), status), ("subscription_error", json!(429)));
    }
    assert!(client.is_silent().await);
    assert_eq!(app.state.store.hints().waiters(), 100);
    drop(client);
    freed(&app).await;
}

#[tokio::test]
async fn a_burst_that_is_larger_than_the_buffer_arrives_whole() {
    let app = App::new().await;
    let tasks: Value = (0..400).map(|n| (format!("t{n}"), json!({"operation": "import/upload"}))).collect();
    let job = app.post("/v2/jobs", json!({"tasks": tasks})).await.json()["data"].clone();
    let mut client = Client::connect(&app).await;
    client.subscribe(&format!("private-job.{}.tasks", job["id"].as_str().unwrap()), &app.key).await;
    assert!(client.is_silent().await);
    for task in job["tasks"].as_array().unwrap() {
        app.request("POST", &format!("/v2/tasks/{}/cancel", task["id"].as_str().unwrap())).send().await;
    }
    let mut told: Vec<String> = Vec::new();
    for _ in 0..400 {
        let (name, _, data) = client.event().await;
        assert_eq!(name, "task.failed");
        told.push(data["task"]["id"].as_str().unwrap().to_owned());
    }
    told.sort();
    let mut wanted: Vec<_> = job["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect();
    wanted.sort_unstable();
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn silence_a_revoked_key_and_a_stop_end_what_is_open() {
    let app = App::new().await.hurried(|periods| {
        periods.key_check = SILENCE * 2;
        periods.silence_max = SILENCE * 3;
    });
    let (job, ..) = app.small_job().await;
    let mut silent = Client::connect(&app).await;
    let mut client = Client::connect(&app).await;
    client.subscribe(&format!("private-job.{job}"), &app.key).await;
    assert!(client.is_silent().await);
    app.revoke_key().await;
    assert_eq!(client.next().await.unwrap(), format!("42[\"subscription_error\",\"private-job.{job}\",401]"));
    while silent.next().await.is_some() {}
    app.run_small_job().await;
    assert!(client.is_silent().await);
    app.state.stopping.cancel();
    while client.next().await.is_some() {}
    freed(&app).await;
    app.get("/socket.io/?EIO=4&transport=polling").await.fails(503, "UNAVAILABLE");
}
