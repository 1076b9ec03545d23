//! Webhooks against a receiver that does as it is told.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

fn app() -> Arc<PusherApp> {
    Arc::new(PusherApp::new("1", "app-key", "app-secret"))
}

/// What broke nearly: an address is shown at boot, in logs and in status, and may hold a secret in its path.
#[test]
fn an_address_is_http_and_shows_no_secret() {
    let at = |url: &str| Receiver::at(url, app()).map(|receiver| receiver.shown().to_owned());
    assert_eq!(at("http://127.0.0.1:9/hooks/s3cret?token=s3cret"), Ok("http://127.0.0.1:9".to_owned()));
    assert_eq!(at("https://example.com"), Ok("https://example.com".to_owned()));
    for bad in ["", "example.com", "/hooks", "ftp://example.com/s3cret", "file:///etc/s3cret", "http://", "http://ann:s3cret@example.com/"]
    {
        let why = at(bad).unwrap_err();
        assert!(why.contains("pusher.webhook_urls") && !why.contains("s3cret"), "{bad}: {why}");
    }
}

/// A server that gives each webhook to the test, and answers as the test says.
async fn receiver(answers: &'static [u16]) -> (Receiver, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    let (heard, hears) = mpsc::channel(64);
    tokio::spawn(async move {
        for status in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            loop {
                text.push(stream.read_u8().await.unwrap());
                let read = String::from_utf8_lossy(&text).into_owned();
                let Some((head, body)) = read.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
                if body.len() == length.unwrap_or_default() {
                    heard.send(read).await.unwrap();
                    break;
                }
            }
            let answer = format!("HTTP/1.1 {status} x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (Receiver::at(&url, app()).unwrap(), hears)
}

fn sender(receiver: Receiver, hooks: &Hooks) -> Sender {
    let pauses = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));
    Sender { receiver: Arc::new(receiver), queue: Arc::clone(&hooks.queues()[0]), standing: Arc::default(), now_ms: Box::new(|| 7), pauses }
}

#[tokio::test]
async fn a_webhook_is_tried_until_it_is_taken() {
    let hooks = Hooks::new(HookKind::ALL, 1);
    let (receiver, mut hears) = receiver(&[500, 302, 200, 200]).await;
    let (sender, stopping) = (sender(receiver, &hooks), CancellationToken::new());
    let standing = Arc::clone(&sender.standing);
    let working = tokio::spawn(sender.run(stopping.clone()));
    hooks.tell_of(HookKind::ChannelOccupied, "a");
    let first = hears.recv().await.unwrap();
    let body = "{\"time_ms\":7,\"events\":[{\"name\":\"channel_occupied\",\"channel\":\"a\"}]}";
    assert!(first.starts_with("POST /hooks HTTP/1.1\r\n") && first.ends_with(body), "{first}");
    let proof = format!("x-pusher-signature: {}\r\n", app().sign_webhook(body.as_bytes()));
    assert!(first.contains("x-pusher-key: app-key\r\n") && first.contains(&proof), "{first}");
    assert_eq!([hears.recv().await.unwrap(), hears.recv().await.unwrap()], [first.clone(), first], "the same again, and no redirect");
    let is_well = async {
        while standing.said().trouble.is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(limits::WEBHOOK_TIMEOUT, is_well).await.expect("the third answer is a good one");
    // What waits when the node stops is sent, to whoever was there until now.
    hooks.tell_of(HookKind::ChannelVacated, "a");
    stopping.cancel();
    working.await.unwrap();
    let last = hears.recv().await.unwrap();
    assert!(last.ends_with("\"events\":[{\"name\":\"channel_vacated\",\"channel\":\"a\"}]}"), "{last}");
    assert_eq!(standing.said().dropped, 0);
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_what_is_too_much_or_late() {
    let hooks = Hooks::new(HookKind::ALL, 1);
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let receiver = Receiver::at(&format!("http://{address}/s3cret"), app()).unwrap();
    let mut sender = sender(receiver, &hooks);
    (0..limits::WEBHOOK_QUEUE_EVENTS_MAX + 5).for_each(|_| hooks.tell_of(HookKind::CacheMiss, "cache-a"));
    sender.count_dropped();
    assert_eq!(sender.standing.said().dropped, 5);
    let mut late = hooks.queues()[0].take().unwrap();
    late.since = Instant::now().checked_sub(limits::WEBHOOK_PATIENCE).unwrap();
    sender.deliver(&late, &CancellationToken::new()).await;
    assert_eq!(sender.standing.said().dropped, 5 + limits::WEBHOOK_BATCH_MAX as u64);
    let why = sender.standing.said().trouble.clone().unwrap();
    assert!(why.contains("cannot be reached") && !why.contains("s3cret"), "{why}");
    // A stop waits for nobody who is away.
    sender.farewell().await;
    assert_eq!(sender.standing.said().dropped, 5 + limits::WEBHOOK_QUEUE_EVENTS_MAX as u64);
    assert!(hooks.queues()[0].take().is_none());
}
