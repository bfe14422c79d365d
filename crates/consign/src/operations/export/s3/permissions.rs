//! What `export/s3` must be allowed, as policies of IAM.
//!
//! # Source
//! Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3" and "… for AWS KMS"; Amazon
//! S3 User Guide, "Uploading and copying objects using multipart upload" (`kms:Decrypt` for uploads in parts).

use serde_json::{Value, json};

use crate::operations::export::Naming;
use crate::operations::permissions::{Grant, Permissions, Right};
use crate::operations::trial::Name;

/// What of the arguments decides about rights.
pub(super) struct Asked<'a> {
    pub(super) bucket: &'a str,
    pub(super) region: &'a str,
    pub(super) naming: &'a Naming,
    pub(super) has_acl: bool,
    pub(super) has_tags: bool,
    pub(super) has_kms: bool,
}

pub(super) fn permissions(asked: &Asked<'_>) -> Permissions {
    let Asked { bucket, region, naming, .. } = asked;
    let partition = partition(region);
    let bucket = format!("arn:{partition}:s3:::{bucket}");
    let objects: Vec<String> = naming.globs().iter().map(|glob| format!("{bucket}/{glob}")).collect();
    let mut put = vec!["s3:PutObject"];
    put.extend(asked.has_acl.then_some("s3:PutObjectAcl"));
    put.extend(asked.has_tags.then_some("s3:PutObjectTagging"));
    let mut needed = vec![allow(&put, &json!(objects))];
    if asked.has_kms {
        let keys = ["kms:GenerateDataKey", "kms:Decrypt"];
        let mut statement = allow(&keys, &json!("*"));
        let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        statement["Condition"] = json!({"StringEquals": {"kms:ViaService": format!("s3.{region}.{domain}")}});
        needed.push(statement);
        put.extend(keys);
    }
    let on_objects = [
        (Name::Abort, "s3:AbortMultipartUpload"),
        (Name::Stat, "s3:GetObject"),
        (Name::Read, "s3:GetObject"),
        (Name::Delete, "s3:DeleteObject"),
    ];
    let extras = [
        allow(&["s3:AbortMultipartUpload", "s3:GetObject", "s3:DeleteObject"], &json!(objects)),
        allow(&["s3:ListBucket"], &json!(bucket)),
    ];
    let rights = on_objects.into_iter().chain([(Name::List, "s3:ListBucket")]);
    Permissions {
        needed: Grant {
            rights: put.into_iter().map(|right| Right::new(Name::Write, right)).collect(),
            grant: policy(&needed),
        },
        extras: Some(Grant {
            rights: rights.map(|(step, right)| Right::new(step, right)).collect(),
            grant: policy(&extras),
        }),
    }
}

fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

fn allow(actions: &[&str], resource: &Value) -> Value {
    json!({"Effect": "Allow", "Action": actions, "Resource": resource})
}

fn policy(statements: &[Value]) -> String {
    format!("{:#}", json!({"Version": "2012-10-17", "Statement": statements}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(naming: &Naming, region: &str, has_all: bool) -> (Value, Value) {
        let asked = Asked { bucket: "reports", region, naming, has_acl: has_all, has_tags: has_all, has_kms: has_all };
        let found = permissions(&asked);
        let read = |grant: &Grant| serde_json::from_str(&grant.grant).unwrap();
        (read(&found.needed), read(found.extras.as_ref().unwrap()))
    }

    #[test]
    fn the_least_policy_names_the_prefix_and_one_action() {
        let (needed, extras) = of(&Naming::Prefix("2026/".to_owned()), "eu-west-1", false);
        let statement =
            json!({"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::reports/2026/*"]});
        assert_eq!(needed, json!({"Version": "2012-10-17", "Statement": [statement]}));
        assert_eq!(extras["Statement"][1]["Resource"], "arn:aws:s3:::reports");
        assert!(!extras.to_string().contains("PutObject"));
    }

    #[test]
    fn arguments_ask_for_rights_of_their_own() {
        let (needed, _) = of(&Naming::Exact("a/%d.pdf".to_owned()), "cn-north-1", true);
        let [objects, keys] = needed["Statement"].as_array().unwrap().as_slice() else { panic!("{needed}") };
        assert_eq!(objects["Action"], json!(["s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectTagging"]));
        let names = ["arn:aws-cn:s3:::reports/a/*.pdf", "arn:aws-cn:s3:::reports/a/consign-test-*"];
        assert_eq!(objects["Resource"], json!(names));
        assert_eq!(keys["Action"], json!(["kms:GenerateDataKey", "kms:Decrypt"]));
        assert_eq!(keys["Condition"]["StringEquals"]["kms:ViaService"], "s3.cn-north-1.amazonaws.com.cn");
    }
}
