/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leases of one disk: a server whose store is durable and which may be killed, two hosts that may crash, be cut off or
   come back, requests and replies that get lost or arrive late, and writes that land late. README.md says what is left
   out. One of three data paths is chosen:
     FENCED    the path refuses a write older than its fence; hosts need not renew, and there is no time
     WATCHDOG  the path refuses nothing, but a host renews, and dies with all it wrote when its watchdog fires
     BARE      neither: only a host's own release, or its reboot seen, frees a lease
   Every other -D takes one protection away (or, CANARY_..., claims that something that must happen cannot). */

#ifndef GRANTS
#define GRANTS 3 /* ever; bounds the epochs */
#endif
#ifndef KILLS
#ifdef BARE
#define KILLS 0 /* of the server: it has nothing in memory that a kill could take */
#else
#define KILLS 1
#endif
#endif
#ifndef BOOTS
#define BOOTS 2 /* lives of each host */
#endif

#ifndef STALE
#define STALE 1 /* requests that were given up and may still arrive */
#endif

#define RO 1
#define RW 2

/* What a host asks for. */
#define ACTIVATE_RO 1
#define ACTIVATE_RW 2
#define RELEASE     3
#define RENEW       4

#define DONE    1
#define REFUSED 2

#define UNKNOWN 15 /* life of a host that is not registered */

/* Ticks. A host stops at its deadline by itself or is stopped by its watchdog; the server may call it dead after DEAD. */
#define DEADLINE 2
#ifdef NO_WATCHDOG_TIME
#define DEAD 1
#else
#define DEAD 2
#endif

#ifdef FENCED
#define TIMED 0
#elif defined(WATCHDOG)
#define TIMED 1
#elif defined(BARE)
#define TIMED 0
#else
#error "FENCED, WATCHDOG or BARE"
#endif

#if defined(WATCHDOG) && !defined(LATE_WRITES)
#define DIES(h) under_way[h] = 0
#else
#define DIES(h) skip
#endif

/* Durable: the lease row of each host, its attachment, the life it registered with, the epoch counter. */
byte mode[2], epoch[2], owner[2];
bit granting[2], revoking[2];
bit attached[2];
byte registered[2] = UNKNOWN;
byte next = 1;
byte kills;
/* In the server's memory: the host whose grant is between its two commits, plus one; ticks to evidence of death, to the
   end of grace. */
byte half;
byte till_dead[2], grace;

/* A host: its life, what it believes to hold, whether a release of it is unanswered; ticks to its deadline, ticks since
   it sent its renewal. */
byte life[2];
bit up[2] = 1;
bit known[2]; /* it has registered and its host lease has not run out, as it sees it */
byte holds[2], held_epoch[2];
bit unreleased[2];
byte left[2], since[2];

/* The wire: what each host waits for, the answer, and one request that its sender gave up. */
byte asked[2]; /* a release and a renewal name the epoch that the host holds, or held */
byte reply[2], reply_epoch[2];
byte stale, stale_of, stale_epoch, stale_life;

/* The disk: writes under way, as epoch and life, and the fence. */
byte under_way[2];
byte fence;

/* Ghosts: the newest epoch ever granted; the newest of each host that was broken with the path fenced. */
byte newest;
#ifdef FENCED
byte broken[2];
#define BROKEN(h, e) broken[h] = e
#else
#define BROKEN(h, e) skip
#endif

#define KEY(e, l) ((e) * 4 + (l))
#define CONFLICT(m, o) (mode[o] != 0 && ((m) == RW || mode[o] == RW))

/* Whether a host that has not given up could still change what is on the disk, or be misled by what changes. */
#ifdef FENCED
#define CUT_OFF(o) (held_epoch[o] <= broken[o] || (holds[o] == RW && held_epoch[o] < fence))
#else
#define CUT_OFF(o) false
#endif
#define RIVAL(m, o) (up[o] && holds[o] != 0 && ((m) == RW || holds[o] == RW) && !CUT_OFF(o))

/* The invariants. Two that work with the disk at once, neither cut off: only readers. */
#define TOGETHER (up[0] && up[1] && holds[0] != 0 && holds[1] != 0 && !(holds[0] == RO && holds[1] == RO) && \
                  !CUT_OFF(0) && !CUT_OFF(1))
/* A write that lands after the disk was given to a newer holder, or to a later life of its writer. */
#define AFTER(o, key) (up[o] && holds[o] != 0 && KEY(held_epoch[o], life[o]) > key)

/* What must be possible: each variant claims that one of these never happens. */
#ifdef CANARY_SHARED
#define SEEN_HELD (holds[0] == RO && holds[1] == RO)
#elif defined(CANARY_MIGRATED)
#define SEEN_HELD (holds[1] == RW && newest == 2 && known[0] && registered[1] == 0 && kills == 0)
#elif defined(CANARY_CUT_OFF)
#define SEEN_HELD (up[0] && holds[0] == RW && holds[1] == RW)
#elif defined(CANARY_AFTER_FORGETTING)
#define SEEN_HELD (holds[1] == RW && kills == 1 && up[0] && known[0] && registered[0] == UNKNOWN)
#else
#define SEEN_HELD false
#endif
#ifdef CANARY_RECLAIM
#define SEEN_RECLAIM (kills == KILLS)
#else
#define SEEN_RECLAIM false
#endif
#ifdef CANARY_REFUSED
#define SEEN_REFUSED (under_way[me] / 4 < fence)
#else
#define SEEN_REFUSED false
#endif
#ifdef CANARY_BREAK
#define SEEN_BREAK true
#elif defined(CANARY_REBOOT)
#define SEEN_BREAK (registered[h] != owner[h])
#else
#define SEEN_BREAK false
#endif

inline drop_row(h)
{
    mode[h] = 0; epoch[h] = 0; owner[h] = 0; granting[h] = 0; revoking[h] = 0
}

/* The grant is told: nobody else may be able to work against it. */
inline promise(h, e)
{
    assert(!CONFLICT(mode[h], 1 - h));
    assert(!RIVAL(mode[h], 1 - h));
    answer = DONE; answer_epoch = e
}

#ifdef NO_EPOCH_IN_RELEASE
#define SAME_EPOCH(h, e) true
#else
#define SAME_EPOCH(h, e) (epoch[h] == (e))
#endif
#ifdef NO_NONCE
#define SAME_LIFE(h, l) true
#else
#define SAME_LIFE(h, l) (owner[h] == (l))
#endif

/* What else keeps a grant back. */
#ifdef READ_BESIDE_WRITE
#define HINDERED(m, o) ((m) == RW && mode[o] != 0)
#elif defined(WRITE_BESIDE_READ)
#define HINDERED(m, o) (mode[o] == RW)
#elif defined(EXPIRY_GRANTS) && defined(WATCHDOG)
#define HINDERED(m, o) (CONFLICT(m, o) && till_dead[o] != 0)
#elif defined(EXPIRY_GRANTS)
#define HINDERED(m, o) false /* no host renews, so all have expired */
#elif defined(TARGET_FIRST)
#define HINDERED(m, o) (CONFLICT(m, o) && !(attached[0] && attached[1]))
#else
#define HINDERED(m, o) CONFLICT(m, o)
#endif
#ifdef GRANT_IN_GRACE
#define GRACE(m) false
#elif defined(READ_IN_GRACE)
#define GRACE(m) (grace != 0 && (m) == RW)
#else
#define GRACE(m) (grace != 0)
#endif
#define ALIVE(h, l) (registered[h] == (l) && (!TIMED || till_dead[h] != 0))

inline activate(h, m, l)
{
    if
    :: mode[h] == m && SAME_LIFE(h, l) && ALIVE(h, l) && !granting[h] && !revoking[h] ->
        assert(!SEEN_RECLAIM);
        answer = DONE; answer_epoch = epoch[h] /* what it has already */
    :: else ->
        if
        :: mode[h] == 0 && !HINDERED(m, 1 - h) && !GRACE(m) && ALIVE(h, l) && attached[h] && next <= GRANTS ->
            assert(next > newest);
            mode[h] = m; epoch[h] = next; owner[h] = l;
            newest = next; next++;
#ifdef FENCED
#ifdef REPLY_BEFORE_FENCE
            promise(h, epoch[h])
#else
            granting[h] = 1; half = h + 1 /* the reply follows the second commit */
#endif
#else
            promise(h, epoch[h])
#endif
        :: else -> answer = REFUSED; answer_epoch = 0
        fi
    fi
}

inline serve(h, what, e, l)
{
    answer = 0; answer_epoch = 0;
    if
    :: what == ACTIVATE_RO -> activate(h, RO, l)
    :: what == ACTIVATE_RW -> activate(h, RW, l)
    :: what == RELEASE ->
#ifdef NO_OWNER_IN_RELEASE
        if
        :: mode[0] != 0 -> drop_row(0)
        :: else -> drop_row(1)
        fi;
#else
        if
        :: mode[h] != 0 && SAME_LIFE(h, l) && SAME_EPOCH(h, e) && !granting[h] && !revoking[h] -> drop_row(h)
        :: else
        fi;
#endif
        answer = DONE; answer_epoch = e
    :: what == RENEW ->
#ifdef RENEW_UNCHECKED
        if
        :: registered[h] == UNKNOWN -> registered[h] = l
        :: else
        fi;
        if
        :: registered[h] == l -> till_dead[h] = DEAD; answer = DONE; answer_epoch = e
#else
        if
        :: registered[h] == l && (e == 0 || (mode[h] != 0 && owner[h] == l && epoch[h] == e)) ->
            till_dead[h] = DEAD; answer = DONE; answer_epoch = e
#endif
        :: else -> answer = REFUSED; answer_epoch = e
        fi
    fi
}

/* REPLY_BEFORE_COMMIT: what the store holds, behind what the server says. */
#ifdef REPLY_BEFORE_COMMIT
byte stored_mode[2], stored_epoch[2], stored_owner[2], stored_next = 1;
#endif

#ifdef BREAK_WITHOUT_EVIDENCE
#define EVIDENCE(h) true
#elif defined(WATCHDOG)
#define EVIDENCE(h) (till_dead[h] == 0 || REBOOT(h))
#else
#define EVIDENCE(h) REBOOT(h)
#endif
/* Another life has registered, and the disk knows the session of the old one no more. */
#ifdef REBOOT_WITHOUT_LOOKING
#define REBOOT(h) (registered[h] != UNKNOWN && registered[h] != owner[h])
#else
#define REBOOT(h) (registered[h] != UNKNOWN && registered[h] != owner[h] && under_way[h] == 0)
#endif

inline restart()
{
    half = 0;
#ifdef REPLY_BEFORE_COMMIT
    mode[0] = stored_mode[0]; mode[1] = stored_mode[1];
    epoch[0] = stored_epoch[0]; epoch[1] = stored_epoch[1];
    owner[0] = stored_owner[0]; owner[1] = stored_owner[1]; next = stored_next;
#endif
#ifdef EPOCH_IN_MEMORY
    next = 1;
#endif
    /* grants nobody was told of */
    if :: granting[0] -> drop_row(0) :: else fi;
    if :: granting[1] -> drop_row(1) :: else fi
}

/* The store is lost or an old copy of it came back. Epochs go on above all that can have been given. */
inline forget()
{
    drop_row(0); drop_row(1);
    attached[0] = 0; attached[1] = 0;
    registered[0] = UNKNOWN; registered[1] = UNKNOWN;
    BROKEN(0, newest); BROKEN(1, newest);
    till_dead[0] = 0; till_dead[1] = 0;
#ifdef EPOCH_NOT_PUSHED
    next = 1;
#else
    next = newest + 1;
#endif
    grace = (TIMED -> DEAD : 0)
}

proctype Server()
{
    byte h, answer, answer_epoch;
end:
    do
    :: atomic { half == 0 && (asked[0] != 0 || asked[1] != 0) ->
        if :: asked[0] != 0 -> h = 0 :: asked[1] != 0 -> h = 1 fi;
        d_step {
            serve(h, asked[h], held_epoch[h], life[h]);
            if
            :: half == 0 -> reply[h] = answer; reply_epoch[h] = answer_epoch; asked[h] = 0
            :: else
            fi;
            h = 0; answer = 0; answer_epoch = 0
        } }
    :: d_step { half == 0 && stale != 0 ->
        serve(stale_of, stale, stale_epoch, stale_life);
        stale = 0; stale_of = 0; stale_epoch = 0; stale_life = 0; answer = 0; answer_epoch = 0 }

#ifdef FENCED
    /* The second half of a grant: the path is fenced up to its epoch, the row is held, the reply is given. */
    :: d_step { half != 0 ->
        h = half - 1; half = 0;
        granting[h] = 0;
        if :: epoch[h] > fence -> fence = epoch[h] :: else fi;
        promise(h, epoch[h]);
        if
        :: asked[h] == mode[h] -> /* and its asker still waits */
            reply[h] = answer; reply_epoch[h] = answer_epoch; asked[h] = 0
        :: else
        fi;
        h = 0; answer = 0; answer_epoch = 0 }
#ifdef REPLY_BEFORE_FENCE
    :: d_step { (mode[0] != 0 && epoch[0] > fence) -> fence = epoch[0] }
    :: d_step { (mode[1] != 0 && epoch[1] > fence) -> fence = epoch[1] }
#endif
    /* A break: the intent is committed, the path is fenced above the epoch, the row goes. */
    :: atomic { half == 0 && ((mode[0] != 0 && !revoking[0]) || (mode[1] != 0 && !revoking[1])) ->
        if :: mode[0] != 0 && !revoking[0] -> h = 0 :: mode[1] != 0 && !revoking[1] -> h = 1 fi;
        revoking[h] = 1; h = 0 }
    :: atomic { half == 0 && (revoking[0] || revoking[1]) ->
        if :: revoking[0] -> h = 0 :: revoking[1] -> h = 1 fi;
#ifndef BREAK_WITHOUT_FENCE
        if :: epoch[h] + 1 > fence -> fence = epoch[h] + 1 :: else fi;
#endif
        assert(!CONFLICT(mode[h], 1 - h));
        assert(!SEEN_BREAK);
        BROKEN(h, epoch[h]); drop_row(h); h = 0 }
#else
    :: atomic { (mode[0] != 0 && EVIDENCE(0)) || (mode[1] != 0 && EVIDENCE(1)) ->
        if :: mode[0] != 0 && EVIDENCE(0) -> h = 0 :: mode[1] != 0 && EVIDENCE(1) -> h = 1 fi;
        assert(!SEEN_BREAK);
        drop_row(h); h = 0 }
#endif

#ifdef REPLY_BEFORE_COMMIT
    :: d_step { stored_mode[0] = mode[0]; stored_mode[1] = mode[1]; stored_epoch[0] = epoch[0];
                stored_epoch[1] = epoch[1]; stored_owner[0] = owner[0]; stored_owner[1] = owner[1]; stored_next = next }
#endif
    :: d_step { kills < KILLS -> kills++; restart() } /* the machine went on: its clock of boot time too */
#ifdef WATCHDOG
    :: d_step { kills < KILLS -> kills++; restart(); /* the machine rebooted: what ran out before is not known */
#ifdef NO_REARM
                till_dead[0] = 0; till_dead[1] = 0 }
#else
                till_dead[0] = DEAD; till_dead[1] = DEAD }
#endif
#endif
#ifndef BARE
    :: d_step { kills < KILLS -> kills++; restart(); forget() }
#endif
    od
}

inline die(h)
{
    up[h] = 0; known[h] = 0; holds[h] = 0; held_epoch[h] = 0; unreleased[h] = 0; left[h] = 0; since[h] = 0;
    reply[h] = 0; reply_epoch[h] = 0;
    DIES(h)
}

/* The request is out of its sender's hands: it may still arrive, or never. */
inline abandon(h)
{
    if
    :: STALE && stale == 0 && asked[h] != 0 && asked[h] != RENEW ->
        stale = asked[h]; stale_of = h; stale_epoch = held_epoch[h]; stale_life = life[h]
    :: true
    fi;
    asked[h] = 0; since[h] = 0
}

#define IDLE(h) (asked[h] == 0 && reply[h] == 0)
#ifdef NO_DRAIN
#define DRAINED(h) true
#else
#define DRAINED(h) (under_way[h] == 0)
#endif
#ifdef FORGETS_RELEASE
#define MAY_ACTIVATE(h) true
#else
#define MAY_ACTIVATE(h) (!unreleased[h])
#endif

proctype Host(byte me)
{
    byte waits; /* for the answer to this */
end:
    do
    /* Registration is one step; a new life has a new nonce. */
    :: d_step { up[me] && !known[me] && holds[me] == 0 && IDLE(me) ->
#ifndef DETACHES
        attached[me] = 1;
#endif
        known[me] = 1; registered[me] = life[me]; left[me] = (TIMED -> DEADLINE : 0); till_dead[me] = (TIMED -> DEAD : 0) }
#ifdef DETACHES
    :: d_step { up[me] && known[me] && !attached[me] -> attached[me] = 1 }
    :: d_step { attached[me] && mode[me] == 0 && holds[me] == 0 && IDLE(me) -> attached[me] = 0 }
#endif

    :: atomic { up[me] && known[me] && attached[me] && holds[me] == 0 && MAY_ACTIVATE(me) && IDLE(me) && next <= GRANTS ->
        unreleased[me] = 0; held_epoch[me] = 0;
        if :: asked[me] = ACTIVATE_RO :: asked[me] = ACTIVATE_RW fi;
        waits = asked[me] }
    :: d_step { up[me] && holds[me] != 0 && DRAINED(me) && IDLE(me) -> /* lets go, then says so */
        holds[me] = 0; unreleased[me] = 1; asked[me] = RELEASE; waits = RELEASE }
    :: d_step { up[me] && unreleased[me] && IDLE(me) ->
        asked[me] = RELEASE; waits = RELEASE }
#ifdef WATCHDOG
    :: d_step { up[me] && known[me] && !unreleased[me] && IDLE(me) ->
        asked[me] = RENEW; since[me] = 0; waits = RENEW }
#endif
    /* Answers. A host that is told to stop waits for the end of what it wrote, or its watchdog does. */
    :: d_step { up[me] && reply[me] != 0 && !(waits == RENEW && reply[me] == REFUSED && under_way[me] != 0) ->
        if
        :: waits == RELEASE -> unreleased[me] = 0; held_epoch[me] = 0
        :: waits == RENEW && reply[me] == DONE ->
#ifdef DEADLINE_FROM_RECEIPT
            left[me] = DEADLINE
#else
            if :: DEADLINE - since[me] > left[me] -> left[me] = DEADLINE - since[me] :: else fi
#endif
        :: waits == RENEW && reply[me] == REFUSED -> /* it begins anew */
            holds[me] = 0; held_epoch[me] = 0; known[me] = 0; left[me] = 0
        :: waits != RELEASE && waits != RENEW ->
            if
            :: reply[me] == DONE && known[me] ->
                holds[me] = waits; held_epoch[me] = reply_epoch[me];
                assert(!TOGETHER);
                assert(!SEEN_HELD)
            :: else
            fi
        fi;
        waits = 0; since[me] = 0; reply[me] = 0; reply_epoch[me] = 0 }
    :: d_step { reply[me] != 0 -> waits = 0; since[me] = 0; reply[me] = 0; reply_epoch[me] = 0 } /* or they get lost */
    :: atomic { asked[me] != 0 -> abandon(me); waits = 0 }

    /* What the lease is for. A write may land at any time after it was issued. */
    :: d_step { up[me] && holds[me] == RW && under_way[me] == 0 -> under_way[me] = KEY(held_epoch[me], life[me]) }
    :: d_step { under_way[me] != 0 ->
        assert(!SEEN_REFUSED);
        assert(under_way[me] / 4 < fence || (!AFTER(0, under_way[me]) && !AFTER(1, under_way[me])));
        under_way[me] = 0 }
    :: atomic { up[me] -> abandon(me); waits = 0; d_step { die(me) } }
    :: d_step { !up[me] && life[me] + 1 < BOOTS -> up[me] = 1; life[me]++ }
    od
}

#ifdef WATCHDOG
inline tick(h)
{
    if :: till_dead[h] > 0 -> till_dead[h]-- :: else fi;
    if :: asked[h] == RENEW || reply[h] != 0 -> if :: since[h] < DEADLINE -> since[h]++ :: else fi :: else fi;
    if :: left[h] > 0 -> left[h]-- :: else fi;
    if
    :: left[h] == 0 && known[h] ->
#ifndef NO_WATCHDOG
        if
        :: holds[h] != 0 -> die(h)
        :: else -> known[h] = 0
        fi
#else
        known[h] = 0; holds[h] = 0 /* it sees for itself; what it wrote is not stopped */
#endif
    :: else
    fi
}

proctype Clock()
{
end:
    do
    :: d_step { (till_dead[0] + till_dead[1] + left[0] + left[1] + grace > 0) ->
        if :: grace > 0 -> grace-- :: else fi;
        tick(0); tick(1) }
    od
}
#endif

init
{
    atomic {
        run Server(); run Host(0); run Host(1);
#ifdef WATCHDOG
        run Clock()
#endif
    }
}
