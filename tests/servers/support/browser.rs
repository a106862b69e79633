//! A headless Chromium, asked through a pipe in the DevTools protocol. It ends with the pipe, whatever becomes of the test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// An answer that takes longer is a defect, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// A browser with one tab.
pub(crate) struct Browser {
    child: Child,
    asks: ChildStdin,
    answers: Receiver<Value>,
    session: Option<String>,
    number: u64,
    /// What it told without being asked.
    events: VecDeque<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one, where there is one.
    pub(crate) fn start() -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let named = std::env::var("TIERSTACK_TEST_BROWSER").ok().filter(|name| !name.is_empty());
        let runs = |name: &&&str| {
            let asked = Command::new(**name).arg("--version").output();
            asked.is_ok_and(|answer| answer.status.success())
        };
        let found = named.or_else(|| names.iter().find(runs).map(ToString::to_string));
        let program =
            super::required(found, "there is no Chromium (`scripts/test-servers install` has it)")?;
        let profile = tempfile::tempdir().unwrap();
        // Its pipes are the file descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, &program])
            .args([
                "--headless",
                "--no-sandbox",
                "--remote-debugging-pipe",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--disable-dev-shm-usage", "--disable-sync", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let asks = child.stdin.take().unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while told.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { return };
                message.clear();
                if tell.send(value).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            asks,
            answers,
            session: None,
            number: 0,
            events: VecDeque::new(),
            _profile: profile,
        };
        let tab = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let session = browser
            .ask("Target.attachToTarget", json!({"targetId": tab["targetId"], "flatten": true}));
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Asks, and gives the result.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut question = json!({"id": self.number, "method": method, "params": params});
        if let Some(session) = &self.session {
            question["sessionId"] = session.as_str().into();
        }
        let mut line = question.to_string().into_bytes();
        line.push(0);
        self.asks.write_all(&line).unwrap();
        loop {
            let answer = self.answers.recv_timeout(PATIENCE);
            let answer = answer.unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push_back(answer);
        }
    }

    /// Opens an address, and waits until it is there.
    pub(crate) fn open(&mut self, url: &str) {
        self.ask("Page.navigate", json!({"url": url}));
        self.wait(&format!("location.href === {url:?} && document.readyState === 'complete'"));
    }

    /// The value of an expression in the page.
    pub(crate) fn js(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.ask("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression holds.
    pub(crate) fn wait(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.js(&format!("!!({expression})")) != Value::Bool(true) {
            if begun.elapsed() > PATIENCE {
                let body = self.js("document.body.innerText");
                panic!("it does not come to hold: {expression}\n{body}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Presses a key, such as `Tab`.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            " " => (32, " "),
            other => panic!("{other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let params =
                json!({"type": kind, "key": key, "windowsVirtualKeyCode": code, "text": text});
            self.ask("Input.dispatchKeyEvent", params);
        }
    }

    /// Types text where the focus is.
    pub(crate) fn write(&mut self, text: &str) {
        self.ask("Input.insertText", json!({"text": text}));
    }

    pub(crate) fn width(&mut self, width: u32, height: u32) {
        let params =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", params);
    }

    /// `dark` or `light`.
    pub(crate) fn scheme(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// A picture of the whole page, for a person to look at: into the folder that `TIERSTACK_TEST_PICTURES` names.
    pub(crate) fn picture(&mut self, name: &str, width: u32) {
        use base64::Engine;
        let Some(folder) = std::env::var_os("TIERSTACK_TEST_PICTURES") else { return };
        self.width(width, 700);
        let height = self.js("document.documentElement.scrollHeight").as_u64().unwrap();
        self.width(width, height as u32);
        let shot = self.ask("Page.captureScreenshot", json!({"format": "png"}));
        let png = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap());
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), png.unwrap())
            .unwrap();
    }

    /// Everything that was told so far.
    pub(crate) fn events(&mut self) -> impl Iterator<Item = &Value> {
        // Whatever was told before this answer.
        self.js("0");
        self.events.iter()
    }

    /// Exceptions, errors of the console, and what the page's policy forbade. Answers of the server with an error, and
    /// failed connections, are not among them.
    pub(crate) fn problems(&mut self) -> Vec<String> {
        let is_problem = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["source"] != "network",
            _ => false,
        };
        self.events().filter(is_problem).map(ToString::to_string).collect()
    }

    /// The addresses that were asked.
    pub(crate) fn asked(&mut self) -> Vec<String> {
        let asked = self.events().filter(|event| event["method"] == "Network.requestWillBeSent");
        asked.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
