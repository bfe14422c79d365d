iam = client("iam")


def policy(statement):
    # Without spaces: the gateway does not read `+` as a space in the form's body.
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, separators=(",", ":"))


principal = {"AWS": ["arn:aws:iam:::user/test"]}
try:
    trust = policy({"Effect": "Allow", "Principal": principal, "Action": ["sts:AssumeRole"]})
    role = iam.create_role(RoleName="testkit", AssumeRolePolicyDocument=trust)["Role"]
except iam.exceptions.ClientError:  # it is there: the gateway does not say so in a way that boto3 knows
    role = iam.get_role(RoleName="testkit")["Role"]
rights = policy({"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"})
iam.put_role_policy(RoleName="testkit", PolicyName="all", PolicyDocument=rights)
got = client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="testkit", DurationSeconds=900)["Credentials"]
result = {
    "access_key_id": got["AccessKeyId"],
    "secret_access_key": got["SecretAccessKey"],
    "session_token": got["SessionToken"],
}
