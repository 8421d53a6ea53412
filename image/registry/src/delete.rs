//! Taking a manifest from a registry, and with it the tags that lead to it. Its blobs go when the registry collects its garbage.

use rbuild_image::Reference;
use reqwest::Method;

use crate::Result;
use crate::session::Session;
use crate::transport::Call;

impl Session {
    /// Registries delete by digest only, so a tag is asked for what it leads to. What is not there is gone already.
    pub(crate) async fn delete_manifest(&self, reference: &Reference) -> Result<()> {
        let Some(found) = self.head(reference).await? else { return Ok(()) };
        let target = self.target(reference, "pull,delete").await?;
        let url = target.url(&format!("manifests/{}", found.digest))?;
        let call = || Call::new(Method::DELETE, url.clone());
        self.request_with_retries(&target, &[200, 202, 404], call).await.map(drop)
    }
}
