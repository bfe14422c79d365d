//! The catalogue of operations, and what is said of those that are not here.

use consign::operations;
use serde_json::Value;

use super::app::App;

#[tokio::test]
async fn operations_are_public() {
    let app = App::new().await;
    let list = app.request("GET", "/v2/operations?include=options").anonymous().send().await.json();
    assert_eq!(list.as_object().unwrap().keys().collect::<Vec<_>>(), ["data"]);
    assert_eq!(list["data"].as_array().unwrap().len(), operations::all().count());
    let one = app.get("/v2/operations?filter[operation]=export/url").await.json();
    assert_eq!(one["data"].as_array().unwrap().len(), 1);
    assert!(one["data"][0].get("options").is_none());
}

#[tokio::test]
async fn the_catalogue_comes_from_the_types_that_check_arguments() {
    let app = App::new().await;
    let list = app.get("/v2/operations?filter[operation]=export/s3&include=options,engine_versions").await.json();
    let [entry] = list["data"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(entry["engine_versions"], serde_json::json!([]));
    let options = entry["options"].as_array().unwrap();
    let option = |name: &str| options.iter().find(|option| option["name"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(option("metadata")["type"], "dictionary");
    assert_eq!(option("bucket")["type"], "string");
    for option in options {
        let is_scalar = |value: &Value| !value.is_object() && !value.is_array();
        assert!(is_scalar(&option["default"]), "the Java SDK reads texts: {option}");
        assert!(option["possible_values"].as_array().into_iter().flatten().all(is_scalar), "{option}");
    }
    for (target, found) in [
        ("/v2/operations?filter[operation]=export%2Fs3", 1),
        ("/v2/operations?filter[operation]=&filter[input_format]=&alternatives=true", operations::all().count()),
        ("/v2/operations?filter[operation]=import/azure-blob", 0),
        ("/v2/operations?filter[input_format]=docx&filter[output_format]=pdf", 0),
        ("/v2/operations?filter[operation]=convert", 0),
        ("/v2/convert/formats?filter[input_format]=jpg", 0),
        ("/v2/convert/formats", 0),
    ] {
        let list = app.request("GET", target).anonymous().send().await;
        assert_eq!(list.status, 200, "{target}");
        assert_eq!(list.json()["data"].as_array().unwrap().len(), found, "{target}");
    }
    let java = app.request("GET", "/v2/operations").header("user-agent", "cloudconvert-java/v2").send().await.json();
    let names: Vec<&str> =
        java["data"].as_array().unwrap().iter().map(|one| one["operation"].as_str().unwrap()).collect();
    assert!(names.contains(&"import/azure-blob") && !names.contains(&"export/upload"), "{names:?}");
}

#[tokio::test]
async fn operations_of_the_contract_that_are_not_built_in_are_named_as_such() {
    let app = App::new().await;
    for name in operations::elsewhere::NAMES {
        assert!(operations::find(name).is_none(), "{name} is built in by now");
        let alone = app.post(&format!("/v2/{name}"), serde_json::json!({"input": "a", "output_format": "pdf"})).await;
        assert_eq!(alone.status, 422, "{name}");
        let alone = alone.json();
        let sentence = &alone["errors"]["operation"][0];
        assert!(sentence.as_str().unwrap().contains(&format!("{name} is not built into this server")), "{alone}");
        let job = app.post("/v2/jobs", serde_json::json!({"tasks": {"do": {"operation": name}}})).await;
        assert_eq!((job.status, &job.json()["errors"]["tasks.do.operation"][0]), (422.try_into().unwrap(), sentence));
    }
    assert_eq!(app.request("POST", "/v2/convert").anonymous().send().await.status, 401);
    assert_eq!(app.post("/v2/pdf/fold", serde_json::json!({})).await.status, 404, "nobody knows that one");
}
