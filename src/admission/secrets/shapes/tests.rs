use std::path::Path;

use proptest::prelude::*;
use proptest::sample;
use rstest::rstest;
use serde_json::Value;

use super::*;

#[test]
fn the_expressions_compile() {
    Shapes::compile().map(|_| ()).unwrap();
}

/// The variables of one case of the policy's own suite.
fn variables(case: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/plugins/library/plain-secrets-in-env.test.yaml");
    let suite: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = suite["cases"].as_array().unwrap();
    let case = cases.iter().find(|found| found["name"] == case).unwrap();
    let env = case["spec"]["configuration"]["env"].as_object().unwrap();
    env.values()
        .map(|value| value.as_str().unwrap().to_owned())
        .collect()
}

#[rstest]
#[case("tokens of well-known shapes under harmless names")]
#[case("secrets inside of other things under harmless names")]
fn what_the_policy_denies_by_its_shape_is_found(#[case] case: &str) {
    let missed: Vec<_> = variables(case)
        .into_iter()
        .filter(|text| find(text).is_empty())
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[rstest]
#[case("values that are none")]
#[case("references in every form that dstack fills in")]
fn what_the_policy_takes_for_none_is_left_alone(#[case] case: &str) {
    let wrong: Vec<_> = variables(case)
        .into_iter()
        .filter(|text| !find(text).is_empty())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[rstest]
#[case("export HF_TOKEN=hunter2hunter2", "export HF_TOKEN=*")]
#[case(
    "curl -H 'Authorization: Bearer abcdef1234567890ab' x",
    "curl -H 'Authorization: Bearer *' x"
)]
#[case(
    "curl -H \"authorization: token abcdefg\" x",
    "curl -H \"authorization: token *\" x"
)]
#[case(
    "git clone https://me:hunter2@host/x.git a",
    "git clone https://*@host/x.git a"
)]
#[case(
    "git clone https://ghp_FAKEfakeFAKEfakeFAKEfakeFAKEfakeFAKE@host/x",
    "git clone https://*@host/x"
)]
#[case("login --password hunter2hunter2 -u me", "login --password * -u me")]
#[case(
    "login --token $HF_TOKEN --max-tokens 4096",
    "login --token $HF_TOKEN --max-tokens 4096"
)]
#[case(
    "aws configure set aws_secret_access_key=wJalrXUtnFEMIxK7MDENGxbPxRfiCYEXAMPLEKEY",
    "aws configure set aws_secret_access_key=*"
)]
#[case(
    "echo '-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----' > k",
    "echo '*' > k"
)]
#[case("echo '-----BEGIN RSA PRIVATE KEY-----\nabc", "echo '*")]
#[case(
    "docker login -u me -p hunter2hunter2 r.example",
    "docker login -u me -p * r.example"
)]
#[case("sshpass -p 'hunter 2 hunter' ssh host", "sshpass -p '*' ssh host")]
#[case("mysql -u root -phunter2hunter2 db", "mysql -u root -p* db")]
#[case(
    "redis-cli -h cache -a hunter2hunter2 ping",
    "redis-cli -h cache -a * ping"
)]
#[case("curl -su me:hunter2 https://x", "curl -su me:hunter2 https://x")]
#[case("curl -s -u me:hunter2 https://x", "curl -s -u me:* https://x")]
#[case("export MY_TOKEN=hunter2hunter2", "export MY_TOKEN=*")]
#[case("export DB_PASS=hunter2hunter2", "export DB_PASS=*")]
#[case(
    "export DB_PASSWORD=\"correct horse battery\"",
    "export DB_PASSWORD=\"*\""
)]
#[case("cat <<E\npassword: hunter2hunter2\nE", "cat <<E\npassword: *\nE")]
#[case(
    "cat <<E\ndb_password: |-\n  hunter2hunter2\nuser: me\nE",
    "cat <<E\ndb_password: |-\n  *\nuser: me\nE"
)]
#[case("machine h login me password hunter2", "machine h login me password *")]
#[case(
    "{\"auths\": {\"r\": {\"auth\": \"bWU6aHVudGVyMg==\"}}}",
    "{\"auths\": {\"r\": {\"auth\": \"*\"}}}"
)]
#[case(
    "curl -H 'PRIVATE-TOKEN: hunter2hunter2' x",
    "curl -H 'PRIVATE-TOKEN: *' x"
)]
#[case(
    "curl 'https://x/y?sig=hunter2hunter2&a=b'",
    "curl 'https://x/y?sig=*&a=b'"
)]
#[case(
    "wandb login --relogin 0123456789abcdef0123456789abcdef01234567",
    "wandb login --relogin *"
)]
#[case("login(token='hunter2hunter2')", "login(token='*')")]
#[case("git clone https://me:p@ss:w0rd@host/x", "git clone https://*@host/x")]
#[case("a hf_FAKEfakeFAKEfakeFAKEfake, hf_FAKEfakeFAKEfakeFAKEfake", "a *, *")]
#[case("é hf_FAKEfakeFAKEfakeFAKEfake é", "é * é")]
#[case("tool --password pässwörtchen é", "tool --password * é")]
#[case(
    "python train.py --tokens 5 --passwordless",
    "python train.py --tokens 5 --passwordless"
)]
fn only_the_secret_part_of_a_command_is_taken(#[case] text: &str, #[case] expected: &str) {
    let mut left = text.to_owned();
    for range in find(text).into_iter().rev() {
        left.replace_range(range, "*");
    }
    assert_eq!(left, expected);
}

proptest! {
    #[test]
    fn no_character_is_torn(before in "\\PC{0,8}", value in "\\PC{0,12}", mark in sample::select(MARKS)) {
        let text = format!("{before}{mark}={value} --password {value}://{value}@{before}");
        for range in find(&text) {
            prop_assert!(text.get(range).is_some());
        }
    }
}

#[rstest]
#[case(
    "docker pull r.example/x@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)]
#[case("git checkout 356a192b7913b04c54574d18c28d46e6395428ab")]
#[case("train --id 6f1e9c1a-8c1b-4c1f-9d2a-1b2c3d4e5f60 --pad-token-id 128001 --max-tokens 4096")]
#[case("cat /mnt/checkpoints/step-000100000/model-00001-of-00010.safetensors")]
#[case("export HF_TOKEN=$HF_TOKEN PASSWORD_FILE=/run/secrets/db TOKENIZERS_PARALLELISM=false")]
#[case("export HF_TOKEN=${{ secrets.HF }} && huggingface-cli login --token \"$HF_TOKEN\"")]
#[case("ssh -p 2222 host; mkdir -p /data/run; docker run -p 8080:8080 image; mysql -p db")]
#[case("python x.py --eos_token=\"<|endoftext|>\" --tokenizer meta/llama --token-budget 100000")]
#[case("kubectl get secret my-secret -o yaml; curl -u $USER:$PASS https://x")]
#[case("sort --key 3; next_token=xyzzyxyz12 max_tokens=1000000 tokens: 4096")]
fn what_an_auditor_needs_stays(#[case] text: &str) {
    let found: Vec<_> = find(text).into_iter().map(|range| &text[range]).collect();
    assert!(found.is_empty(), "{found:?}");
}
