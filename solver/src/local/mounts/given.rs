//! What a build is given for its steps' eyes only: secrets and ssh agents.

use rbuild_executor::{Access, MountSource};
use rbuild_llb::{SecretEnv, SecretFile, SshSocket};

use crate::local::ssh_relay::SshRelay;
use crate::local::{LocalWorker, WorkerError};
use crate::secrets::{SecretError, SecretValue};

/// BuildKit takes no other bits of `mode`.
const PERMISSIONS: u32 = 0o777;

impl LocalWorker<'_> {
    pub(super) fn secret_file(&self, file: &SecretFile) -> Result<Option<MountSource>, WorkerError> {
        let Some(value) = self.secret(&file.id, file.optional)? else { return Ok(None) };
        let access = self.access(file.uid, file.gid, file.mode);
        Ok(Some(MountSource::memory_file(value.as_bytes(), access)?))
    }

    /// The lines of the environment that hold secrets. One that is optional and missing is there, and empty, as in BuildKit.
    pub(super) fn secret_env(&self, declared: &[SecretEnv]) -> Result<Vec<String>, WorkerError> {
        let line = |secret: &SecretEnv| {
            let value = self.secret(&secret.id, secret.optional)?;
            let bytes = value.as_ref().map_or(&[][..], SecretValue::as_bytes);
            let text = str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| SecretError::NotText { id: secret.id.clone() })?;
            Ok(format!("{}={text}", secret.name))
        };
        declared.iter().map(line).collect()
    }

    fn secret(&self, id: &str, optional: bool) -> Result<Option<SecretValue>, WorkerError> {
        match self.options.secrets.get(id)? {
            None if !optional => Err(WorkerError::SecretNotFound { id: id.to_owned() }),
            value => Ok(value),
        }
    }

    pub(super) fn ssh_socket(
        &self,
        socket: &SshSocket,
        relays: &mut Vec<SshRelay>,
    ) -> Result<Option<MountSource>, WorkerError> {
        let Some(agent) = self.options.ssh.get(&socket.id) else {
            return match socket.optional {
                true => Ok(None),
                false => Err(WorkerError::SshNotFound { id: socket.id.clone() }),
            };
        };
        let access = self.access(socket.uid, socket.gid, socket.mode);
        let (listener, source) = MountSource::memory_socket(access)?;
        let failed = WorkerError::io("start", format!("the relay to the ssh agent `{}`", socket.id));
        relays.push(SshRelay::start(listener, agent.clone()).map_err(failed)?);
        Ok(Some(source))
    }

    /// With a single id all belongs to it, as files do.
    const fn access(&self, uid: u32, gid: u32, mode: u32) -> Access {
        let (uid, gid) = if self.options.single_id { (0, 0) } else { (uid, gid) };
        Access { uid, gid, mode: mode & PERMISSIONS }
    }
}
