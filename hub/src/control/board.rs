//! Verbs about the board, and what an operator's other verbs tell the bus.

use mobo_core::kernel::{Event, topics};
use mobo_runtime::board_desk;
use mobo_runtime::control::{ControlError, EventSink};
use serde_json::Value;

use super::{Desk, explain, text};

impl Desk {
    /// Answers any verb.
    pub(super) async fn respond(&self, verb: &str, args: &Value, out: &EventSink) -> Result<Value, ControlError> {
        if let Some(answer) = board_desk::answer(&self.0.board, verb, args, out).await {
            return answer;
        }
        if let Some(answer) = self.backup(verb, args).await {
            return answer;
        }
        let answer = self.answer(verb, args).await.map_err(|error| explain(&error))?;
        self.written_down(verb, args, &answer).await.map_err(|error| explain(&error))?;
        if let Some(event) = told(verb, args, &answer) {
            self.0.board.tell(event);
        }
        Ok(answer)
    }
}

/// What a verb that was carried out is for the bus.
fn told(verb: &str, args: &Value, answer: &Value) -> Option<Event> {
    match verb {
        "device revoke" => Some(topics::revoked(&text(answer, "revoked"))),
        "key create" => Some(topics::key(&text(answer, "name"), "created")),
        "key revoke" => Some(topics::key(&text(args, "name"), "revoked")),
        "collection create" | "collection alter" => Some(topics::collection(&text(args, "name"), &text(answer, "kind"))),
        _ => None,
    }
}
