//! An admission webhook as Kubernetes knows it, anywhere on the network.

use bytes::Bytes;
use http::Uri;
use ulid::Ulid;

use super::breaker::Breaker;
use super::http::{Client, Settings};
use crate::admission::text;
use crate::admission::verdict::{Budget, Call, Fault, FaultKind, Verdict};
use crate::protocol::admission_review::{decode_response, encode_request};

#[derive(Debug)]
pub struct Webhook {
    client: Client,
}

impl Webhook {
    /// # Errors
    /// As [`Client::new`].
    pub fn new(settings: &Settings) -> Result<Self, String> {
        Ok(Self {
            client: Client::new(settings)?,
        })
    }

    pub fn url(&self) -> &Uri {
        self.client.url()
    }

    pub fn breaker(&self) -> &Breaker {
        self.client.breaker()
    }

    /// Sends the review and judges the answer as the API server would.
    ///
    /// # Errors
    /// When the webhook cannot be reached in time or does not answer by the rules.
    pub async fn call(&self, call: &Call, budget: Budget) -> Result<Verdict, Fault> {
        let uid = uuid(Ulid::generate());
        let spec = text::render(&call.review.spec, &call.spec);
        let body = encode_request(&call.review, &uid, &spec).map_err(|e| {
            Fault::new(
                FaultKind::Undecodable,
                format!("the spec cannot be sent: {e}"),
            )
        })?;
        let url = self.url_with_timeout(budget)?;
        let answer = self
            .client
            .post(&url, call, Bytes::from(body), budget)
            .await?;
        decode_response(&answer, &uid, call.phase)
    }

    /// The address with `?timeout=`, in which the API server tells a webhook how long it waits.
    fn url_with_timeout(&self, budget: Budget) -> Result<Uri, Fault> {
        let url = self.client.url();
        let separator = if url.query().is_some() { '&' } else { '?' };
        let timeout = humantime::format_duration(std::time::Duration::from_millis(
            budget.limit.as_millis() as u64,
        ));
        let text = format!(
            "{url}{separator}timeout={}",
            timeout.to_string().replace(' ', "")
        );
        text.parse().map_err(|_| {
            Fault::new(FaultKind::Connect, "its address is no valid URL").with_detail(text)
        })
    }
}

/// A ULID in the form of a UUID, which is what webhooks know as a uid.
fn uuid(id: Ulid) -> String {
    let hex = format!("{:032x}", u128::from(id));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
