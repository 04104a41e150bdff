/*
 * cli/cli.h - the posthouse command and its Postfix-named faces
 *
 * One binary: called by a name of Postfix's it behaves as that command.
 */
#ifndef PH_CLI_CLI_H
#define PH_CLI_CLI_H

#include <sys/types.h>

#include "config/config.h"
#include "daemon/ask.h"

/* Exit statuses of sysexits.h that the faces use. */
enum { EX_OK_ = 0, EX_USAGE_ = 64, EX_DATAERR_ = 65, EX_UNAVAILABLE_ = 69, EX_TEMPFAIL_ = 75 };

/* The letters of getopt() of mailq and newaliases, which take sendmail's options. */
#define CLI_SENDMAIL_LETTERS "+A:B:b:C:c:d:e:F:f:Gh:IiL:mN:no:O:p:q::R:r:tUV:vX:x"

/* Each takes its own argv (argv[0] is the command's name) and returns the exit status.  dir is the
 * configuration directory from -c before the command, or NULL.  The letters that each gives
 * getopt() begin with a plus sign: as with Postfix, options end at the first argument that is none,
 * so that a recipient or a name that comes from elsewhere does not choose what the command does. */
int cli_postmap(const char *dir, int argc, char **argv);
int cli_postqueue(const char *dir, int argc, char **argv);
int cli_mailq(const char *dir, int argc, char **argv);
int cli_postsuper(const char *dir, int argc, char **argv);
int cli_postcat(const char *dir, int argc, char **argv);
int cli_qshape(const char *dir, int argc, char **argv);
int cli_postalias(const char *dir, int argc, char **argv);
int cli_newaliases(const char *dir, int argc, char **argv);
int cli_postfix(const char *dir, int argc, char **argv);
int cli_reload(const char *dir, int argc, char **argv);
int cli_restart(const char *dir, int argc, char **argv);
int cli_sendmail(const char *dir, int argc, char **argv);
int cli_postconf(const char *dir, int argc, char **argv);
int cli_check(const char *dir, int argc, char **argv);
int cli_setup(const char *dir, int argc, char **argv);
int cli_import(const char *dir, int argc, char **argv);
int cli_export(const char *dir, int argc, char **argv);
int cli_queue(const char *dir, int argc, char **argv);
int cli_relay(const char *dir, int argc, char **argv);
int cli_record(const char *dir, int argc, char **argv);
int cli_domain(const char *dir, int argc, char **argv);
int cli_user(const char *dir, int argc, char **argv);
int cli_admin(const char *dir, int argc, char **argv);
int cli_explain(const char *dir, int argc, char **argv);
int cli_test(const char *dir, int argc, char **argv);

int cli_container(const char *dir, int argc, char **argv);
int cli_first(const char *dir, int argc, char **argv);

/* As posthouse test of a sender, to any recipient: prints the stages, and sends no mail.  False:
 * *failed is the stage that did ("" if none was reached).  *next_hop: where the road leads, or "".
 * Both are the caller's to free. */
bool cli_test_road(const struct config *cfg, const char *sender, char **failed, char **next_hop);
/* The configuration directory that sendmail's -C names by itself or by a file in it; it lives as
 * long as the program. */
const char *cli_dir_or_file(const char *arg);
/* Until the descriptor is closed no other command changes files in the directory that holds path.
 * Each user who may read the directory can hold it, so it is not waited for without end: -EBUSY.
 * -1: there can be no lock, and errno says why. */
int cli_lock_folder(const char *path);
/* Prints text of clients, hosts and tables without what a terminal would obey: control characters,
 * those behind ASCII too, are question marks, and a line feed is a blank. */
void cli_put_safe(const char *text);
/* Prints a line of JSON.  In its texts the characters U+0080 to U+009F, which a terminal may obey,
 * are written as escapes. */
void cli_put_json(struct str line);
/* Prints a line {"name": "value"}, as Postfix 3.11 does with -j. */
void cli_print_pair(struct str name, struct str value);
/* The configuration directory: dir, else MAIL_CONFIG, else PH_CONFIG_DIR. */
const char *cli_dir(const char *dir);
/* The configuration directory, without links; NULL after saying why there is none.  The caller
 * frees. */
char *cli_real_dir(const char *who, const char *dir);
/* Loads it; NULL after saying why. */
struct config *cli_config(const char *who, const char *dir);
/* The same for those who hand mail over or look at the queue: mistakes in it are said, and what is
 * wrong has its default; NULL where main.cf cannot be read. */
struct config *cli_config_with_mistakes(const char *who, const char *dir);
/* Asks the daemon, as ask_daemon does; -1 after saying why it did not answer with "ok": true. */
int cli_control(const char *who, const struct config *cfg, const char *request, ask_line_fn fn,
                void *arg, struct ask_end *end);
/* Asks the daemon, as ask_daemon does; where it is not running, what the queue holds is answered
 * from the spool, and standard error says so, beginning with who. */
int cli_ask(const char *who, const struct config *cfg, const char *request, ask_line_fn fn,
            void *arg, struct ask_end *end, char **why);
/* The same as an exit status: also that this user may not do it is said. */
int cli_control_status(const char *who, const struct config *cfg, const char *request,
                       ask_line_fn fn, void *arg, struct ask_end *end);
/* The process that has the spool of cfg; 0: none runs; negative errno, -ENOLCK: one runs, and its
 * lock file was removed. */
pid_t cli_daemon(const struct config *cfg);
/* Ends that process in order and waits until it has, which a delivery past its final dot may delay.
 * 0; -ESRCH: none runs; -ETIMEDOUT: it did not end within a minute; other negative errno. */
int cli_stop_daemon(const struct config *cfg);
/* Can the spool of dir's Posthouse, which does not run, be opened, and has it room for that queue
 * (below), which Postfix may still have?  The exit status; what there is to be said has been.
 * *has_mail: is there mail in that spool? */
int cli_transfer_fits(const char *dir, const char *front, bool *has_mail);
/* Moves the queue of the Postfix with the configuration directory front (NULL: the one that main.cf
 * of dir names) into the spool of dir's Posthouse, or the other way: both are stopped.  The exit
 * status of import and export; what there is to be said has been. */
int cli_transfer(const char *dir, const char *front, bool in);
/* Has that configuration no relay record, and no relay host in an accounts store that is
 * Posthouse's alone (the embedded one, or one that no table of main.cf can be of)?
 * Postfix, which is to send the mail again, knows neither their accounts, hosts and TLS nor their
 * names.  False after saying which there are, and what to do: command, with --without-records. */
bool cli_records_may_stay(const struct config *cfg, const char *command);
/* Removes what cli_transfer has left in Postfix's queue directory of mail that it has taken over,
 * which may take as long again: not while a mail system is waited for.  Postfix is stopped. */
void cli_transfer_sweep(const char *dir, const char *front);
/* Is the (last) host of the next hop at port 465, where TLS begins with the first byte? */
bool cli_hop_wraps(const char *hop);
/* Takes flag out of argv; was it there? */
bool cli_take_flag(int *argc, char **argv, const char *flag);

/* A password, typed without echo or the first line of standard input; the caller wipes and frees.
 * NULL: there is none. */
char *cli_password(const char *prompt);
/* Something was written (uses: enum ask_uses): a running daemon takes it up, or it is said why not.
 */
void cli_take_up(const struct config *cfg, unsigned uses);

#endif
