//! The README's first session, typed as it stands there.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use rollcall::config::DEFAULTS;
use rollcall::outbound::http::client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::process::Place;
use crate::support::sse::EventStream;

const README: &str = include_str!("../../README.md");
/// Where the README's commands find the edge.
const ADDRESS: &str = "127.0.0.1:8470";
const ALICE: &str = "@alice:rollcall.localhost";
const BOB: &str = "@bob:rollcall.localhost";
const CAROL: &str = "@carol:b.example";

/// Far beyond what anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes wait for as long as it takes to apply them, so that an overloaded machine is as good as any. Carol's server is not there.
const CONFIG: &str = r#"
edge.apply_wait = "10s"
federation.resolve = { "b.example" = "http://127.0.0.1:9" }
"#;

/// What `curl` is told.
#[derive(Default)]
struct Request {
    method: Method,
    path: String,
    authorization: String,
    body: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_session_goes_as_the_readme_says() {
    assert!(DEFAULTS.contains(&format!("\nlisten = \"{ADDRESS}\"\n")), "the edge is elsewhere by default");
    let place = Place::new("rollcall.localhost", "embedded:", CONFIG);
    let _process = place.serve().await;
    let (mut stream, mut seen) = (None, Vec::new());
    for command in commands() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words[..] {
            ["curl", ref arguments @ ..] => {
                let request = Request::of(arguments);
                if arguments.contains(&"-N") {
                    seen.push("stream");
                    stream = Some(open(&place, &request).await);
                } else {
                    seen.extend(request.play(&place).await);
                }
            }
            ["sleep", seconds] => sleep(Duration::from_secs(seconds.parse().unwrap())).await,
            ["cargo", "run", "--release", "--", ref arguments @ ..] => drop(place.run(arguments).await),
            _ => panic!("what does {command:?} do?"),
        }
    }
    assert_eq!(seen, ["question", "list", "stream"]);
    stream.expect("it was opened").until_event(ALICE, |content| content["status_msg"] == "eaten").await;
}

async fn open(place: &Place, request: &Request) -> EventStream {
    assert_eq!(request.path, format!("/_rollcall/v1/users/{BOB}/stream"));
    let headers = format!("Authorization: {}\r\n", request.authorization);
    let mut stream = EventStream::ask(&place.url(), BOB, &headers).await;
    stream.until_event(ALICE, |content| content["status_msg"] == "cupcakes").await;
    stream
}

impl Request {
    fn of(arguments: &[&str]) -> Self {
        let mut request = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut next = || *words.next().expect("an option's value");
            match *word {
                "-N" => {}
                "-X" => request.method = next().parse().unwrap(),
                "-d" => request.body = next().to_owned(),
                "-H" => request.authorization = next().strip_prefix("Authorization: ").unwrap().to_owned(),
                url => request.path = url.strip_prefix(&format!("http://{ADDRESS}")).unwrap().to_owned(),
            }
        }
        request
    }

    /// Sends it, and looks at what the README says of the answer; which of these it was.
    async fn play(&self, place: &Place) -> Option<&'static str> {
        let answer = self.send(place).await;
        match self.path.rsplit('/').nth(1) {
            _ if self.method != Method::GET => {
                assert_eq!(answer, json!({}), "{}", self.path);
                None
            }
            Some("list") => {
                let [alice, carol] = answer.as_array().unwrap().as_slice() else { panic!("{answer}") };
                assert_eq!((&alice["user_id"], &alice["presence"]), (&json!(ALICE), &json!("online")), "{answer}");
                // At once: her yes was answered.
                assert_eq!((&alice["accepted"], &alice["status_msg"]), (&json!(true), &json!("cupcakes")), "{answer}");
                assert_eq!(*carol, json!({ "user_id": CAROL, "accepted": false, "presence": "unknown" }));
                Some("list")
            }
            _ => {
                self.until_asked(place, answer).await;
                Some("question")
            }
        }
    }

    /// Here a second is enough; on a machine that does much else it may not be.
    async fn until_asked(&self, place: &Place, mut answer: Value) {
        assert_eq!(self.path, format!("/_rollcall/v1/users/{ALICE}/requests"));
        let deadline = Instant::now() + PATIENCE;
        while answer[0]["observer"] != BOB {
            assert!(Instant::now() < deadline, "{answer}");
            sleep(Duration::from_millis(10)).await;
            answer = self.send(place).await;
        }
    }

    async fn send(&self, place: &Place) -> Value {
        let request = client(PATIENCE).unwrap().request(self.method.clone(), format!("{}{}", place.url(), self.path));
        let request = request.header("authorization", &self.authorization).body(self.body.clone());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", self.path);
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }
}

/// The session's commands, each taken apart.
fn commands() -> Vec<Vec<String>> {
    let (_, section) = README.split_once("\n## A first session\n").expect("the README has a first session");
    let (_, block) = section.split_once("```sh\n").expect("with commands");
    let (block, _) = block.split_once("\n```").expect("that end");
    let lines = block.replace("\\\n", " ");
    // An interactive zsh knows no comments: there a lone quote would swallow what follows, and words behind a command be its arguments.
    let odd = |line: &&str| line.contains('#') && (!line.starts_with('#') || line.contains(['\'', '`']));
    assert_eq!(lines.lines().find(odd), None);
    lines.lines().map(words).filter(|words| !words.is_empty()).collect()
}

/// Words as a shell takes them: single quotes, and comments.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), line.trim_start());
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("the quote ends"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[test]
fn words_are_what_a_shell_makes_of_them() {
    assert_eq!(words("a  -d '{\"b\": \"c d\"}' # e"), ["a", "-d", "{\"b\": \"c d\"}"]);
    assert_eq!(words("# only said"), [""; 0]);
}
