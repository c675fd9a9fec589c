// Package run is the node agent's loop: it brings what the API wants and what
// the runtime has together, asks package pod what comes next, and does it.
//
// One worker per pod does all that concerns the pod; nothing is shared between
// workers but the runtime's event stream and the writer of events. It decides
// nothing about a pod's life: that is package pod's. It keeps nothing on disk:
// what must survive a restart is asked of the API, the runtime and the hooks.
package run
