//! What waits, and for how long.
use super::*;
use crate::alert::outbox::Envelope;
use std::fs;

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_mail_is_a_file_with_an_envelope_and_a_whole_message() {
    let dir = folder();
    let (outbox, _told) = outbox_for(dir.path(), &["a@x.example", "On call <b@y.example>"]);
    let mut held = record(17);
    held.evidence = Some("token hunter2, 90 °C".to_owned());
    let post = Post { kind: PostKind::Alert, ids: vec![17], more: 0 };
    let id = outbox.put(&post, &[held]).expect("a writable directory");
    assert_eq!(files(&dir.path().join("outbox")), ["0000000001.mail"]);
    let mail = outbox.open(1).expect("a mail");
    let Envelope { message_id, ids, subject, to, attempts, .. } = mail.envelope;
    assert_eq!((message_id, ids, attempts), (id.clone(), vec![17], 0));
    assert_eq!(
        (subject.as_str(), to),
        ("[ALERT] LLM held: t17 (gpu1)", vec!["a@x.example".to_owned(), "b@y.example".to_owned()])
    );
    let text = String::from_utf8(mail.bytes).expect("ASCII");
    assert!(text.is_ascii() && !text.contains("hunter2"), "{text}");
    for header in [
        "From: mainstay@gpu1.example\r\n",
        "Subject: [ALERT] LLM held: t17 (gpu1)\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "MIME-Version: 1.0\r\n",
        "Content-Type: text/plain; charset=utf-8\r\n",
        &format!("Message-ID: {id}\r\n"),
        "\r\nDate: ",
        "[redacted]",
    ] {
        assert!(text.contains(header), "{header}: {text}");
    }
    assert!(id.starts_with('<') && id.ends_with("@gpu1.example>"), "{id}");
}

#[test]
fn a_return_answers_the_mail_before_it() {
    let dir = folder();
    let (outbox, _told) = outbox(dir.path());
    let first = put(&outbox, 1);
    let mut over = record(1);
    over.mail.message_id = Some(first.clone());
    let answer = outbox.put(&Post { kind: PostKind::Return, ids: vec![1], more: 0 }, &[over]);
    assert_ne!(answer.expect("a writable directory"), first);
    let text = String::from_utf8(outbox.open(2).expect("a mail").bytes).expect("ASCII");
    assert!(text.contains(&format!("\r\nIn-Reply-To: {first}\r\n")), "{text}");
    assert!(text.contains(&format!("\r\nReferences: {first}\r\n")), "{text}");
}

#[test]
fn a_later_agent_finds_what_an_earlier_one_left_and_counts_on() {
    let dir = folder();
    (1..=3).for_each(|id| _ = put(&outbox(dir.path()).0, id));
    let (outbox, _told) = outbox(dir.path());
    assert_eq!(outbox.numbers().expect("a directory"), [1, 2, 3]);
    outbox.give_up(3).expect("a writable directory");
    let (later, _told) = self::outbox(dir.path());
    put(&later, 4);
    // Not 3 again: that one is kept among the failed.
    assert_eq!(later.numbers().expect("a directory"), [1, 2, 4]);
}

#[test]
fn a_full_outbox_lets_the_oldest_go_and_says_so() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    (1..=203).for_each(|id| _ = put(&outbox, id));
    let kept = outbox.numbers().expect("a directory");
    assert_eq!((kept.len(), kept[0]), (200, 4));
    let dropped: Vec<Vec<u64>> = told
        .try_iter()
        .filter_map(|outcome| match outcome {
            Outcome::Dropped { mail } => Some(mail.ids),
            _ => None,
        })
        .collect();
    assert_eq!(dropped, [[1], [2], [3]]);
}

#[test]
fn large_mails_are_bounded_in_bytes() {
    let dir = folder();
    let (outbox, _told) = outbox(dir.path());
    let dir = dir.path().join("outbox");
    fs::create_dir(&dir).expect("a writable directory");
    for number in 1..=4 {
        fs::write(dir.join(format!("{number:010}.mail")), vec![b'x'; 3 << 20]).expect("a writable directory");
    }
    put(&outbox, 5);
    assert_eq!(outbox.numbers().expect("a directory"), [3, 4, 5]);
    // However much there is to say, one mail is far from the limit for one file.
    let mut record = record(6);
    let text = "x ".repeat(400_000);
    // Each differs from the others: what is the same is told once.
    let numbered = |number: usize| Line { text: format!("{number} {text}"), ..Line::default() };
    record.timeline = (0..200).map(numbered).collect();
    record.scene.last_lines = vec![text.clone(); 200];
    (record.advice, record.evidence) = (Some(text.clone()), Some(format!("evidence {text}")));
    outbox
        .put(&Post { kind: PostKind::Alert, ids: vec![6], more: 0 }, &[record])
        .expect("a writable directory");
    let length = outbox.open(6).expect("a mail").bytes.len();
    assert!((40_000..200_000).contains(&length), "{length}");
}

#[test]
fn of_what_was_given_up_the_newest_are_kept() {
    let dir = folder();
    let (outbox, _told) = outbox(dir.path());
    for id in 1..=25 {
        put(&outbox, id);
        outbox.give_up(id).expect("a writable directory");
    }
    let failed = files(&dir.path().join("outbox/failed"));
    assert_eq!((failed.len(), failed[0].as_str()), (20, "0000000006.mail"));
}

#[test]
fn half_a_file_is_no_mail() {
    let dir = folder();
    let (outbox, _told) = outbox(dir.path());
    put(&outbox, 1);
    fs::write(dir.path().join("outbox/0000000002.mail"), "{\"message_id\":").expect("a writable directory");
    fs::write(dir.path().join("outbox/0000000003.new"), "{}\n").expect("a writable directory");
    assert_eq!(outbox.numbers().expect("a directory"), [1, 2]);
    assert_eq!(outbox.open(2).expect_err("it is damaged").kind(), std::io::ErrorKind::InvalidData);
}
