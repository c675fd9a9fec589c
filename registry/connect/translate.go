package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	protocol "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/remotecommand"
	clientspdy "k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

const (
	streamIdle  = 4 * time.Hour   // until a stream without a byte is cut, as kubelets do
	spdyPing    = 5 * time.Second // so that what is in between does not take it for dead
	farewellFor = 10 * time.Second
)

// translate connects a client that speaks WebSocket to a kubelet that is
// spoken to by SPDY. Streams can be closed one by one in both.
// contract: SR-9
func translate(w http.ResponseWriter, r *http.Request, at *url.URL, transport http.RoundTripper, e ends) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	conn, streams, err := accept(lasting(ctx, w, cancel), r, e)
	if err != nil {
		slog.DebugContext(ctx, "accept a web socket", "err", err) // the client has been told
		return
	}
	defer func() { _ = conn.Close() }() // the last word has been said
	opts := remotecommand.StreamOptions{Tty: e.tty}
	if e.stdin {
		opts.Stdin = streams[protocol.StreamStdIn]
	}
	if e.stdout {
		opts.Stdout = streams[protocol.StreamStdOut]
	}
	if e.stderr {
		opts.Stderr = streams[protocol.StreamStdErr]
	}
	if e.tty {
		sizes := make(chan remotecommand.TerminalSize)
		go readSizes(ctx, streams[protocol.StreamResize], sizes)
		opts.TerminalSizeQueue = sizeQueue(sizes)
	}
	last, err := json.Marshal(outcome(speak(ctx, at, transport, opts)))
	if err != nil {
		panic(err) // a Status always encodes
	}
	conn.SetWriteDeadline(farewellFor)
	if _, err := streams[protocol.StreamErr].Write(last); err != nil {
		slog.DebugContext(ctx, "tell a web socket how it ended", "err", err)
	}
}

// accept makes a WebSocket of the client's connection.
func accept(w http.ResponseWriter, r *http.Request, e ends) (*wsstream.Conn, []io.ReadWriteCloser, error) {
	kind := func(wanted bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if !wanted {
			return wsstream.IgnoreChannel
		}
		return kind
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{protocol.StreamProtocolV5Name: {Binary: true, Channels: []wsstream.ChannelType{
		protocol.StreamStdIn:  kind(e.stdin, wsstream.ReadChannel),
		protocol.StreamStdOut: kind(e.stdout, wsstream.WriteChannel),
		protocol.StreamStdErr: kind(e.stderr, wsstream.WriteChannel),
		protocol.StreamErr:    wsstream.WriteChannel,
		protocol.StreamResize: kind(e.tty, wsstream.ReadChannel),
	}}})
	conn.SetIdleTimeout(streamIdle)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return nil, nil, err
	}
	// Nothing at all, by which a client sees that the connection stands.
	hello := protocol.StreamErr
	switch {
	case e.stdout:
		hello = protocol.StreamStdOut
	case e.stderr:
		hello = protocol.StreamStdErr
	}
	if _, err := streams[hello].Write(nil); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, streams, nil
}

// speak opens streams at the kubelet and passes what flows, until they end.
func speak(ctx context.Context, at *url.URL, transport http.RoundTripper, opts remotecommand.StreamOptions) error {
	upgrade, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: transport, PingPeriod: spdyPing})
	if err != nil {
		return err
	}
	e, err := remotecommand.NewSPDYExecutorRejectRedirects(upgrade, clientspdy.NewUpgraderForStreaming(upgrade), http.MethodPost, at)
	if err != nil {
		return err
	}
	return e.StreamWithContext(ctx, opts)
}

// outcome tells the client how a process ended.
func outcome(err error) metav1.Status {
	var (
		known  apierrors.APIStatus
		exited exec.CodeExitError
	)
	switch {
	case err == nil:
		return metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &known):
		return known.Status()
	case errors.As(err, &exited) && exited.Exited():
		return metav1.Status{
			Status: metav1.StatusFailure, Reason: protocol.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", exited),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{
				{Type: protocol.ExitCodeCauseType, Message: strconv.Itoa(exited.ExitStatus())},
			}},
		}
	}
	return apierrors.NewInternalError(err).Status()
}

// readSizes reads the sizes that a terminal gets, until there are no more.
func readSizes(ctx context.Context, from io.Reader, to chan<- remotecommand.TerminalSize) {
	defer close(to)
	sizes := json.NewDecoder(from)
	for {
		var size remotecommand.TerminalSize
		if err := sizes.Decode(&size); err != nil {
			break
		}
		select {
		case to <- size:
		case <-ctx.Done():
		}
	}
	_, _ = io.Copy(io.Discard, from) // what is not understood must not hold up the other streams
}

// A sizeQueue hands on the sizes of a terminal.
type sizeQueue <-chan remotecommand.TerminalSize

// Next is part of remotecommand.TerminalSizeQueue.
func (q sizeQueue) Next() *remotecommand.TerminalSize {
	size, ok := <-q
	if !ok {
		return nil
	}
	return &size
}
