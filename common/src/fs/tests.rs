use std::sync::Arc;

use super::*;

#[test]
fn replace_is_write_sync_rename_sync_in_that_order() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new());
    let disk = Disk::recording(recorder.clone());
    let path = dir.path().join("identity");
    replace(&disk, &path, b"one").unwrap();
    replace(&disk, &path, b"two").unwrap();
    assert_eq!(read(&path).unwrap(), b"two");
    let order: Vec<&str> = recorder
        .ops()
        .iter()
        .map(|op| match op {
            Op::Create { .. } => "create",
            Op::Write { .. } => "write",
            Op::SyncStart { .. } => "sync",
            Op::SyncDirStart { .. } => "sync dir",
            Op::SyncDone { .. } => "done",
            Op::Rename { .. } => "rename",
            other => panic!("{other:?}"),
        })
        .collect();
    let once = ["create", "write", "sync", "done", "rename", "sync dir", "done"];
    assert_eq!(order, [once, once].concat());
}

#[test]
fn replace_leaves_the_old_content_when_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new());
    let disk = Disk::recording(recorder.clone());
    let path = dir.path().join("identity");
    replace(&disk, &path, b"one").unwrap();
    recorder.inject(|op| {
        matches!(op, Op::Write { .. }).then(|| std::io::ErrorKind::StorageFull.into())
    });
    assert!(replace(&disk, &path, b"two").is_err());
    recorder.heal();
    assert_eq!(read(&path).unwrap(), b"one");
    assert_eq!(read_dir(dir.path()).unwrap(), [path]);
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let lock = lock_dir(&data).unwrap();
    let refused = lock_dir(&data).unwrap_err();
    assert!(
        matches!(refused, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()),
        "{refused}"
    );
    drop(lock);
    lock_dir(&data).unwrap();
}

#[test]
fn an_unusable_directory_is_said_to_be_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    write(&file, b"x").unwrap();
    let refused = lock_dir(&file.join("data")).unwrap_err();
    assert!(matches!(refused, LockError::Unwritable { .. }), "{refused}");
}

#[test]
fn lines_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    append_line(&path, "a").unwrap();
    append_line(&path, "b").unwrap();
    assert_eq!(read_to_string(&path).unwrap(), "a\nb\n");
}

#[test]
fn whether_a_directory_is_writable_is_found_out_without_a_trace() {
    let root = tempfile::tempdir().unwrap();
    let absent = root.path().join("a/b/c");
    check_writable(&absent).unwrap();
    assert!(!root.path().join("a").exists());
    check_writable(root.path()).unwrap();
    assert_eq!(read_dir(root.path()).unwrap(), Vec::<std::path::PathBuf>::new());
    let file = root.path().join("file");
    write(&file, b"x").unwrap();
    assert!(matches!(check_writable(&file.join("d")), Err(LockError::Unwritable { .. })));
    assert!(matches!(
        check_writable(std::path::Path::new("/proc/stela/d")),
        Err(LockError::Unwritable { .. })
    ));
}
