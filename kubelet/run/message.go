package run

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

const (
	maxMessage      = 4096 // bytes of a termination message that are read
	maxMessageLog   = 2048 // bytes of the log, where that stands in for it
	maxMessageLines = 80
)

// podDir is where a pod's files are.
func podDir(root string, uid types.UID) string { return filepath.Join(root, "pods", string(uid)) }

// addMessageFile mounts the file that a container may leave its last words in.
// Whoever the container runs as may write it.
func addMessageFile(root string, c *kubelet.Container) error {
	if c.Spec.TerminationMessagePath == "" {
		return nil
	}
	dir := filepath.Join(podDir(root, c.Pod.UID), "containers", c.Spec.Name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make termination log: %w", err)
	}
	path := filepath.Join(dir, rand.String(8)) // each start has its own
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("make termination log: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Chmod(0o666); err != nil { // whatever the umask
		return fmt.Errorf("make termination log: %w", err)
	}
	c.Config.Mounts = append(c.Config.Mounts, &runtimeapi.Mount{ContainerPath: c.Spec.TerminationMessagePath, HostPath: path})
	return nil
}

// addMessage adds a container's last words to its status, from the file that
// it was given for them or from its log.
func addMessage(st *runtimeapi.ContainerStatus) {
	words := lastWords(st)
	if words == "" {
		return
	}
	if st.Message != "" {
		st.Message += ": "
	}
	st.Message += words
}

func lastWords(st *runtimeapi.ContainerStatus) string {
	path := st.Annotations[messageNote]
	for _, m := range st.Mounts {
		if path == "" || m.ContainerPath != path {
			continue
		}
		b, err := tail(m.HostPath, maxMessage)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Sprintf("Error on reading termination log %s: %v", m.HostPath, err)
		case len(b) > 0:
			return string(b)
		}
		break
	}
	if st.Annotations[policyNote] != string(corev1.TerminationMessageFallbackToLogsOnError) || st.ExitCode == 0 || st.Reason == "ContainerCannotRun" {
		return ""
	}
	return lastLines(st.LogPath)
}

// tail is the end of a file.
func tail(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-limit), limit))
}

// lastLines is the end of what a container wrote to its log.
func lastLines(path string) string {
	// Each line has a time, a stream and a tag before it.
	const overhead = 64
	b, err := tail(path, maxMessageLog+maxMessageLines*overhead)
	if err != nil {
		return fmt.Sprintf("Error on reading termination message from logs: %v", err)
	}
	var lines []string
	for line := range bytes.Lines(b) {
		parts := strings.SplitN(string(line), " ", 4)
		if len(parts) < 4 || parts[1] != "stdout" && parts[1] != "stderr" {
			continue // cut off at the front
		}
		if parts[2] == "P" {
			parts[3] = strings.TrimSuffix(parts[3], "\n")
		}
		lines = append(lines, parts[3])
	}
	text := strings.Join(lines[max(0, len(lines)-maxMessageLines):], "")
	return text[max(0, len(text)-maxMessageLog):]
}

// removeDir removes a directory, unless something is mounted below it: that
// would be removed with it.
func removeDir(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if bytes.Contains(b, []byte(" "+dir+"/")) {
		return fmt.Errorf("something is still mounted in %s", dir)
	}
	return os.RemoveAll(dir)
}
