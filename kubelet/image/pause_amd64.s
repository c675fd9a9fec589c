#include "textflag.h"

// pause is a whole program: see pause.go. It has a stack, and no Go around it.
TEXT pause<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ $-1, AX
	PUSHQ AX             // the set of all signals, at SP
	MOVQ $14, AX         // rt_sigprocmask(SIG_SETMASK, SP, nil, 8)
	MOVQ $2, DI
	MOVQ SP, SI
	XORL DX, DX
	MOVQ $8, R10
	SYSCALL

wait:
	MOVQ $128, AX        // rt_sigtimedwait(SP, nil, nil, 8)
	MOVQ SP, DI
	XORL SI, SI
	XORL DX, DX
	MOVQ $8, R10
	SYSCALL
	CMPQ AX, $15         // SIGTERM
	JEQ  end
	CMPQ AX, $2          // SIGINT
	JEQ  end

reap:
	MOVQ $61, AX         // wait4(-1, nil, WNOHANG, nil)
	MOVQ $-1, DI
	XORL SI, SI
	MOVQ $1, DX
	XORL R10, R10
	SYSCALL
	CMPQ AX, $0
	JGT  reap
	JMP  wait

end:
	MOVQ $231, AX        // exit_group(0)
	XORL DI, DI
	SYSCALL
	BYTE $0x6b; BYTE $0x6e; BYTE $0x61; BYTE $0x72; BYTE $0x72; BYTE $0x65; BYTE $0x6e; BYTE $0x64 // "knarrend"

// func pauseCode() unsafe.Pointer
TEXT ·pauseCode(SB), NOSPLIT, $0-8
	LEAQ pause<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET
