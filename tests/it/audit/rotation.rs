//! Files that are put aside, compressed and deleted while reviews go on.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{events, file_sink, id, log_files, with_sinks};
use crate::harness::sidecar::{RUN, SPEC, body, post};
use crate::harness::{Home, Protocol, Sidecar, eventually, with};

/// Has so many reviews decided over one connection, and gives back their ids.
async fn decide(sidecar: &Sidecar, count: usize) -> Vec<String> {
    let mut connection = sidecar.connect(Protocol::Http1).await;
    let mut ids = Vec::new();
    for _ in 0..count {
        let answer = connection.send(post(RUN, body(SPEC))).await.unwrap();
        answer.assert_allowed();
        ids.push(answer.decision());
    }
    ids
}

#[tokio::test]
async fn a_log_is_rotated_by_size_and_compressed_and_loses_nothing() {
    let home = Home::new();
    let small = json!({"file": {"maxSize": "8k", "maxBackups": 0}});
    let keys = with_sinks([with(file_sink(&home, "blocking"), small)]);
    let sidecar = Sidecar::start_in(home, keys).await;
    let ids = decide(&sidecar, 60).await;
    eventually("all old files are compressed", async || {
        let files = log_files(&sidecar.home);
        let packed = files
            .iter()
            .filter(|file| file.to_string_lossy().ends_with("Z.log.gz"));
        packed.count() == files.len() - 1 && files.len() > 2
    })
    .await;
    let files = log_files(&sidecar.home);
    let recorded: Vec<_> = files.iter().flat_map(|file| events(file)).collect();
    let recorded: Vec<_> = recorded.iter().map(id).collect();
    assert_eq!(recorded, ids, "in order, by the names of the files");
    for file in files {
        let metadata = std::fs::metadata(&file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn so_many_old_files_are_kept_as_the_configuration_says() {
    let home = Home::new();
    let small = json!({"file": {"maxSize": "3k", "maxBackups": 2, "compress": false}});
    let keys = with_sinks([with(file_sink(&home, "blocking"), small)]);
    let sidecar = Sidecar::start_in(home, keys).await;
    let ids = decide(&sidecar, 30).await;
    eventually("two are left", async || log_files(&sidecar.home).len() == 3).await;
    let files = log_files(&sidecar.home);
    let recorded: Vec<_> = files.iter().flat_map(|file| events(file)).collect();
    let recorded: Vec<_> = recorded.iter().map(id).collect();
    assert_eq!(recorded, ids[ids.len() - recorded.len()..], "the newest");
}
