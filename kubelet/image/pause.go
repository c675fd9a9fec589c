//go:build linux && (amd64 || arm64)

package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
	"unsafe"
)

// pauseCode is where the machine code of pause begins in this process.
//
// Pause is what holds a pod's namespaces: it blocks all signals, reaps the
// children that its PID namespace leaves to it, and ends on SIGTERM or SIGINT.
// It is written as an assembly function here so that Go's assembler makes the
// code of every architecture and no image of it need be kept or fetched.
func pauseCode() unsafe.Pointer

// pauseMark follows the last instruction.
const pauseMark = "knarrend"

// pauseProgram is an executable of a few hundred bytes that runs pause.
func pauseProgram() []byte {
	const (
		base   = 0x400000
		header = 64 + 56 // of the file and of its one segment
		limit  = 1024    // more than there is: the mark comes first
	)
	code := unsafe.Slice((*byte)(pauseCode()), limit)
	for i := range code {
		if bytes.HasPrefix(code[i:], []byte(pauseMark)) {
			code = code[:i]
			break
		}
	}
	size := uint64(header + len(code))
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	head := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: base + header, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA], head.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	load := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000,
	}
	var b bytes.Buffer
	for _, part := range []any{head, load, code} {
		_ = binary.Write(&b, binary.LittleEndian, part) // a buffer takes everything
	}
	return b.Bytes()
}

// PauseProgram is the program of the pause image: it does nothing and needs
// next to nothing, which is good for holding namespaces outside of pods too.
func PauseProgram() []byte { return pauseProgram() }
