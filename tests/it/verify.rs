//! `pointsman verify` on the journal of a server, running and stopped, sound and damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pointsman::journal::{FileStorage, Storage};
use serde_json::{Value, json};

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually};

fn verify(data: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["verify", "--data"])
        .arg(data)
        .args(more)
        .output()
        .unwrap()
}

/// The report for programs, and the exit code.
fn report(data: &Path) -> (Value, Option<i32>) {
    let output = verify(data, &["--format", "json"]);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (report, output.status.code())
}

/// Everything that a server writes: drawn, forced by context, rewarded, changed policies.
fn traffic(proxy: &Proxy, rounds: u32) {
    let mut client = proxy.client();
    for round in 0..rounds {
        let category = ["clothing", "movies", "books"][round as usize % 3];
        let unit = format!("user-{}", round % 17);
        let headers = [("x-user-id", unit.as_str()), ("x-category", category)];
        let answer = client.send("POST", "/v1/stars", &headers, b"{}").unwrap();
        let reward = u8::from(answer.arm() == "b");
        let body = json!({"decision_id": answer.decision(), "reward": reward}).to_string();
        assert_eq!(proxy.reward(&body).statuses(), ["accepted"]);
    }
}

const THOMPSON: &str = "[policy.thompson]\n";
const CONTEXTUAL: &str = "[policy.lin_thompson]\n[context.category]\ntype = \"category\"\nheader = \"x-category\"\nvalues = [\"clothing\", \"movies\"]\n[unit]\nheader = \"x-user-id\"\nreallocate = \"1ms\"\n";

/// A server that was killed after some traffic, under two policies and after a restart.
fn journal() -> Proxy {
    let upstream = Upstream::json("{}");
    let mut proxy = Proxy::stars(THOMPSON, &[&upstream, &upstream]);
    traffic(&proxy, 60);
    proxy.write_policy(
        "stars",
        &crate::harness::stars(CONTEXTUAL, &[&upstream, &upstream]),
    );
    assert_eq!(proxy.reload().status, 200);
    traffic(&proxy, 60);
    proxy.kill();
    proxy.run();
    traffic(&proxy, 30);
    proxy.kill();
    unseal(&proxy.data());
    proxy
}

/// Puts the segments back into the form in which they were written.
fn unseal(data: &Path) {
    let directory = data.join("journal");
    let storage = FileStorage::existing(&directory);
    for segment in storage.list().unwrap() {
        let mut bytes = Vec::new();
        storage.read(segment, &mut bytes).unwrap();
        storage.remove(segment).unwrap();
        fs::write(directory.join(format!("{segment:012}.jsonl")), bytes).unwrap();
    }
    for checkpoint in storage.checkpoints().unwrap() {
        storage.remove_checkpoint(checkpoint).unwrap();
    }
}

#[test]
fn sealed_segments_and_what_is_beside_them_are_checked() {
    let mut proxy = journal();
    proxy.run();
    let data = proxy.data();
    let directory = data.join("journal");
    let storage = FileStorage::existing(&directory);
    eventually("there is a checkpoint of sealed segments", || {
        let sealed = storage.is_sealed(1) && storage.is_sealed(2);
        (sealed && !storage.checkpoints().unwrap().is_empty()).then_some(())
    });
    proxy.kill();
    let (sound, code) = report(&data);
    assert_eq!(code, Some(0), "{sound:#}");
    assert_eq!(sound["checkpoints"], 1);
    let checkpoint = storage.checkpoints().unwrap()[0];
    let checkpoint = directory.join(format!("checkpoints/{checkpoint:012}.checkpoint"));
    let files = [
        ("damaged", directory.join("000000000001.jsonl.zst")),
        ("index", directory.join("000000000001.index")),
        ("checkpoint", checkpoint),
    ];
    for (code, path) in files {
        let genuine = fs::read(&path).unwrap();
        let mut flipped = genuine.clone();
        let middle = genuine.len() / 2;
        // Not the bit that zstd leaves unused in the head of a frame: nobody could tell.
        flipped[middle] ^= 1;
        fs::write(&path, &flipped).unwrap();
        let (found, exit) = report(&data);
        assert_eq!(exit, Some(1));
        assert!(
            found["counts"].as_object().unwrap().contains_key(code),
            "{found:#}"
        );
        fs::write(&path, &genuine).unwrap();
    }
    assert_eq!(report(&data).1, Some(0));
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(data.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    segments.sort();
    segments
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_sound_journal_exits_with_0_and_damage_with_1_and_its_place() {
    let proxy = journal();
    let data = proxy.data();
    let (sound, code) = report(&data);
    assert_eq!(
        (sound["ok"].as_bool(), code),
        (Some(true), Some(0)),
        "{sound:#}"
    );
    assert_eq!(sound["problems"], json!([]));
    assert_eq!(sound["records"]["decision"]["count"], 150);
    assert_eq!(sound["records"]["reward"]["count"], 150);
    assert_eq!(sound["propensities_compared"], 150);
    assert_eq!(sound["propensities_not_compared"], 0);
    assert_eq!(sound["first_group"], "1");
    let text = String::from_utf8(verify(&data, &[]).stdout).unwrap();
    assert!(
        text.contains("\nok           every checksum fits"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");

    let first = segments(&data)[0].clone();
    let name = file_name(&first);
    let genuine = fs::read(&first).unwrap();
    let restore = || fs::write(&first, &genuine).unwrap();

    // A flipped bit.
    let middle = genuine.len() / 2;
    let mut bytes = genuine.clone();
    bytes[middle] ^= 4;
    fs::write(&first, &bytes).unwrap();
    let (report_of, code) = report(&data);
    assert_eq!(code, Some(1));
    assert_eq!(report_of["problems"][0]["code"], "damaged");
    assert_eq!(report_of["problems"][0]["segment"], name);
    let offset = report_of["problems"][0]["offset"].as_u64().unwrap() as usize;
    assert!(
        offset <= middle && middle < offset + 100_000,
        "{report_of:#}"
    );
    let text = String::from_utf8(verify(&data, &[]).stdout).unwrap();
    let told = format!("\nnot ok       {name}, byte {offset}: ");
    assert!(text.contains(&told), "{text}");
    restore();

    // A cut in the middle of the journal.
    fs::write(&first, &genuine[..genuine.len() - 20]).unwrap();
    let (report_of, code) = report(&data);
    assert_eq!(code, Some(1));
    assert_eq!(report_of["problems"][0]["code"], "unclosed");
    assert_eq!(report_of["problems"][0]["segment"], name);
    restore();

    // A record changed by someone who knows how to make its checksum.
    let forged = forge(&genuine, "\"propensity\":", "\"propensity\":0.125,\"was\":");
    fs::write(&first, forged).unwrap();
    let (report_of, code) = report(&data);
    assert_eq!(code, Some(1));
    assert_eq!(report_of["problems"][0]["code"], "fields_differ");
    assert_eq!(report_of["problems"].as_array().unwrap().len(), 1);
    restore();

    // The end of the last segment is cut, as a crash may leave it: told, and no problem.
    let last = segments(&data).last().unwrap().clone();
    let whole = fs::read(&last).unwrap();
    fs::write(&last, &whole[..whole.len() - 20]).unwrap();
    let (report_of, code) = report(&data);
    assert_eq!(code, Some(0), "{report_of:#}");
    assert_eq!(report_of["torn"]["segment"], file_name(&last));
    fs::write(&last, &whole).unwrap();

    // A segment in the middle is gone.
    let all = segments(&data);
    assert!(all.len() >= 2, "{all:?}");
    let copy = data.join("journal").join("000000000099.jsonl");
    fs::write(
        &copy,
        forge(&genuine, "\"group\":\"1\"", "\"group\":\"9999\""),
    )
    .unwrap();
    let (report_of, code) = report(&data);
    assert_eq!(code, Some(1));
    let codes = report_of["counts"].as_object().unwrap();
    assert!(codes.contains_key("missing_groups"), "{report_of:#}");
    fs::remove_file(&copy).unwrap();

    // What a start has put aside.
    let quarantine = data.join("journal").join("quarantine");
    fs::create_dir_all(&quarantine).unwrap();
    fs::write(quarantine.join("something"), b"damaged").unwrap();
    let (report_of, code) = report(&data);
    assert_eq!(code, Some(1));
    assert_eq!(report_of["problems"][0]["code"], "quarantined");
    assert_eq!(report_of["problems"][0]["segment"], "quarantine/something");
}

/// The first group in which `from` stands with its first `from` replaced, and its commit line made anew; the rest as it was.
fn forge(segment: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(segment).unwrap();
    let mut forged = String::new();
    let mut group = String::new();
    let mut done = false;
    for line in text.split_inclusive('\n') {
        let hit = !done && line.contains(from);
        let line = if hit {
            line.replacen(from, to, 1)
        } else {
            line.to_owned()
        };
        done |= hit;
        if !line.starts_with("{\"type\":\"commit\"") {
            group.push_str(&line);
            continue;
        }
        let commit: Value = serde_json::from_str(&line).unwrap();
        let head = format!(
            "{{\"type\":\"commit\",\"v\":1,\"count\":{},\"bytes\":{},\"group\":\"{}\",\"crc\":\"",
            commit["count"],
            group.len(),
            commit["group"].as_str().unwrap()
        );
        let crc = crc32fast::hash(format!("{group}{head}").as_bytes());
        forged.push_str(&format!("{group}{head}{crc:08x}\"}}\n"));
        group.clear();
    }
    assert!(done, "{from} is not in the segment");
    forged.into_bytes()
}

#[test]
fn a_deleted_segment_is_told() {
    let proxy = journal();
    let data = proxy.data();
    let all = segments(&data);
    // The first start's, the second start's, and one between them by hand.
    let first = fs::read(&all[0]).unwrap();
    let text = String::from_utf8(first.clone()).unwrap();
    let ends: Vec<usize> = text
        .match_indices("\n{\"type\":\"commit\"")
        .map(|(at, _)| at + 1 + text[at + 1..].find('\n').unwrap() + 1)
        .collect();
    let half = ends[ends.len() / 2];
    let quarter = ends[ends.len() / 4];
    // The group of the repeated end stays where it is: only the middle of the first segment goes.
    fs::write(&all[0], &first[..quarter]).unwrap();
    let number: u64 = file_name(&all[1])
        .trim_end_matches(".jsonl")
        .parse()
        .unwrap();
    for path in all[1..].iter().rev() {
        let old: u64 = file_name(path).trim_end_matches(".jsonl").parse().unwrap();
        fs::rename(path, data.join(format!("journal/{:012}.jsonl", old + 2))).unwrap();
    }
    let rest = data.join(format!("journal/{:012}.jsonl", number + 1));
    fs::write(&rest, &first[half..]).unwrap();
    let between = data.join(format!("journal/{number:012}.jsonl"));
    fs::write(&between, &first[quarter..half]).unwrap();
    let (whole, code) = report(&data);
    assert_eq!(code, Some(0), "{whole:#}");

    fs::remove_file(&between).unwrap();
    let (report_of, code) = report(&data);
    assert_eq!(code, Some(1));
    let problem = &report_of["problems"][0];
    assert_eq!(problem["code"], "missing_groups", "{report_of:#}");
    assert_eq!(problem["segment"], file_name(&rest));
    assert_eq!(problem["offset"], 0);
}

#[test]
fn the_journal_of_a_busy_server_holds() {
    let upstream = Upstream::json("{}");
    let proxy = Proxy::stars(THOMPSON, &[&upstream, &upstream]);
    let data = proxy.data();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| traffic(&proxy, 300));
        let mut looks = 0;
        while !busy.is_finished() || looks < 3 {
            let (report, code) = report(&data);
            assert_eq!(code, Some(0), "{report:#}");
            looks += 1;
        }
    });
    eventually("every decision is in the journal", || {
        let (report, _) = report(&data);
        (report["records"]["decision"]["count"] == 300).then_some(())
    });

    let nowhere = data.join("nowhere");
    let output = verify(&nowhere, &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("no journal in") && text.contains("--data"),
        "{text}"
    );
    assert!(!nowhere.exists());
    assert_eq!(verify(&data, &["--format", "xml"]).status.code(), Some(64));
}

/// Every segment says by itself what is in force, so that rewards and propensities keep their meaning when older ones are deleted.
#[test]
fn what_old_segments_said_is_known_without_them() {
    let upstream = Upstream::json("{}");
    // Nothing of this ever changes, so that nothing would be written again.
    let policy =
        "[policy.fixed]\n[reward]\nkind = \"real\"\nwindow = \"1h\"\naggregate = \"sum\"\n";
    let text = crate::harness::stars(policy, &[&upstream, &upstream]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], "");
    proxy.environment = vec![("POINTSMAN_DATA_SEGMENT_BYTES", PathBuf::from("20000"))];
    for _ in 0..2 {
        proxy.run();
        for _ in 0..100 {
            let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
            let item =
                |name: &str, value: f64| json!({"decision_id": id, "reward": value, "id": name});
            let body = json!([item("x", 1.5), item("y", 2.0)]).to_string();
            assert_eq!(proxy.reward(&body).statuses(), ["accepted", "accepted"]);
        }
        proxy.kill();
    }
    let storage = FileStorage::existing(proxy.data().join("journal"));
    let segments = storage.list().unwrap();
    assert!(segments.len() > 8, "{segments:?}");
    for keep in [4, 1] {
        let (old, left) = segments.split_at(segments.len() - keep);
        for segment in old {
            storage.remove(*segment).ok();
        }
        let (told, code) = report(&proxy.data());
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(told["propensities_not_compared"], 0, "{told}");
        assert!(told["propensities_compared"].as_u64() > Some(5 * left.len() as u64));
    }
    let export = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["export", "--format", "jsonl", "--data"])
        .arg(proxy.data())
        .output()
        .unwrap();
    let rows = String::from_utf8(export.stdout).unwrap();
    let warnings = String::from_utf8(export.stderr).unwrap();
    assert!(
        !warnings.contains("policy file is not in the journal"),
        "{warnings}"
    );
    let rows: Vec<Value> = rows
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    assert!(
        rows.iter()
            .all(|row| row["probabilities"] == json!({"a": 0.5, "b": 0.5}))
    );
    // Of the first and the last one a reward may be in another segment or nowhere.
    assert!(rows.iter().filter(|row| row["reward"] == 3.5).count() + 2 >= rows.len());
}
