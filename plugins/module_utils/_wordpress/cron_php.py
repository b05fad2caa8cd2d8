# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What PHP has to say about a site's scheduled events and updates, and what watches wp-cron.php.

Each is a file of its own on the host. Text here, because Ansible carries nothing but Python to it.
Their environment: POSTMEISTER_URL, the address that WordPress is to think it was asked for; POSTMEISTER_MARK, what
stands before an answer, since plugins may print whatever they like.
"""

from __future__ import annotations

#: Loaded before wp-cron.php: it says so, by words and exit status, when WordPress or its database was not there.
#: By itself wp-cron.php prints a page in HTML and exits 0.
GUARD = r"""<?php
// SPDX-License-Identifier: GPL-3.0-or-later
// Written by postmeister.host; changes are overwritten.

// Who asks? A network finds its site by host and path, plugins make links of them.
(static function () {
    $url = parse_url((string) getenv('POSTMEISTER_URL'));
    if (empty($url['host'])) {
        return;
    }
    $_SERVER['HTTP_HOST'] = $url['host'] . (isset($url['port']) ? ':' . $url['port'] : '');
    $_SERVER['SERVER_NAME'] = $url['host'];
    $_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
    $_SERVER['REQUEST_METHOD'] = 'GET';
    $_SERVER['REQUEST_URI'] = rtrim($url['path'] ?? '', '/') . '/wp-cron.php';
    $_SERVER['REMOTE_ADDR'] = '127.0.0.1';
    if (($url['scheme'] ?? '') === 'https') {
        $_SERVER['HTTPS'] = 'on';
    }
})();

// WordPress's last words as text and not as a page. Filters given before it starts are kept by it.
function postmeister_wp_die($message, $title = '', $args = array())
{
    if (is_object($message) && method_exists($message, 'get_error_message')) {
        $message = $message->get_error_message();
    }
    $text = preg_replace('#<(?:br|/p|/h\d|/li)\b[^>]*>#i', "\n", is_string($message) ? $message : '');
    $text = trim(preg_replace('/\n\s*/', "\n", html_entity_decode(strip_tags($text), ENT_QUOTES, 'UTF-8')));
    if ($text !== '') {
        fwrite(STDERR, $text . "\n");
    }
    if (!is_array($args) || !isset($args['exit']) || $args['exit']) {
        exit($text === '' ? 0 : 1);
    }
}
$GLOBALS['wp_filter']['wp_die_handler'][PHP_INT_MAX]['postmeister'] = array(
    'function' => static function () {
        return 'postmeister_wp_die';
    },
    'accepted_args' => 0,
);

// The second registration happens at the end, so that it comes after all that WordPress does there.
if (basename((string) $_SERVER['SCRIPT_FILENAME']) === 'wp-cron.php') {
    register_shutdown_function(static function () {
        register_shutdown_function(static function () {
            if (!function_exists('did_action') || !did_action('wp_loaded')) {
                fwrite(STDERR, "WordPress did not start.\n");
                exit(1);
            }
            try {
                $there = $GLOBALS['wpdb']->check_connection(false);
            } catch (Throwable $problem) {
                $there = false;
            }
            if (!$there) {
                fwrite(STDERR, "The database went away.\n");
                exit(1);
            }
        });
    });
}
"""

#: Argument: the folder of a site. Prints one line of JSON with the mark in front.
EVENTS = r"""<?php
// SPDX-License-Identifier: GPL-3.0-or-later
// Written by postmeister.host; changes are overwritten.

// The events of a site, and of each site of a network, out of its database. SHORTINIT starts neither plugins nor
// themes: this costs a fifth of a whole WordPress, and none of them can spoil it.
function postmeister_answer(array $answer)
{
    echo "\n", getenv('POSTMEISTER_MARK'), json_encode($answer, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    exit(0);
}

// A network whose address is not given: the one in wp-config.php.
function postmeister_network_url($folder)
{
    $file = is_file("$folder/wp-config.php") ? "$folder/wp-config.php" : dirname($folder) . '/wp-config.php';
    $words = array();
    foreach (token_get_all((string) @file_get_contents($file)) as $token) {
        if (!is_array($token) || !in_array($token[0], array(T_WHITESPACE, T_COMMENT, T_DOC_COMMENT), true)) {
            $words[] = is_array($token) ? $token[1] : $token;
        }
    }
    $found = array();
    foreach ($words as $at => $word) {
        if (strtolower($word) === 'define' && ($words[$at + 1] ?? '') === '(' && isset($words[$at + 4])) {
            $found[trim($words[$at + 2], '\'"')] = trim($words[$at + 4], '\'"');
        }
    }
    return isset($found['DOMAIN_CURRENT_SITE'])
        ? 'http://' . $found['DOMAIN_CURRENT_SITE'] . ($found['PATH_CURRENT_SITE'] ?? '/') : '';
}

function postmeister_site($id, $prefix, $url)
{
    global $wpdb;
    $rows = $wpdb->get_results(
        "SELECT option_name, option_value FROM {$prefix}options WHERE option_name IN ('cron', 'home')", OBJECT_K
    );
    if ($wpdb->last_error) {
        postmeister_answer(array('error' => $wpdb->last_error));
    }
    $home = isset($rows['home']) ? $rows['home']->option_value : '';
    $cron = isset($rows['cron']) ? $rows['cron']->option_value : '';
    $cron = @unserialize($cron, array('allowed_classes' => false));
    $site = array('id' => $id, 'url' => $url ?: $home, 'events' => 0, 'next' => null, 'due' => array());
    if ($url && strncasecmp($home, 'https:', 6) === 0) {
        $site['url'] = 'https' . substr($url, 4);
    }
    foreach (is_array($cron) ? $cron : array() as $time => $hooks) {
        if (!is_int($time) || !is_array($hooks)) {
            continue;
        }
        foreach ($hooks as $hook => $entries) {
            $site['events'] += count((array) $entries);
            if ($time <= time()) {
                $site['due'][] = array('hook' => (string) $hook, 'time' => $time, 'count' => count((array) $entries));
            } else {
                $site['next'] = min($site['next'] ?? $time, $time);
            }
        }
    }
    return $site;
}

$postmeister_folder = rtrim($argv[1], '/');
if (is_file("$postmeister_folder/.maintenance")) {
    $upgrading = 0;
    include "$postmeister_folder/.maintenance";
    // wp_is_maintenance_mode(): a file older than ten minutes counts no more.
    if (time() - $upgrading < 600) {
        postmeister_answer(array('maintenance' => true));
    }
}
if (!getenv('POSTMEISTER_URL')) {
    putenv('POSTMEISTER_URL=' . postmeister_network_url($postmeister_folder));
}
require __DIR__ . '/guard.php';
define('SHORTINIT', true);
define('DOING_CRON', true);
chdir($postmeister_folder);
require "$postmeister_folder/wp-load.php";

$wpdb->suppress_errors();
if (!is_multisite()) {
    $postmeister_sites = array(postmeister_site(1, $wpdb->prefix, ''));
} else {
    $postmeister_sites = array();
    $postmeister_rows = $wpdb->get_results(
        "SELECT blog_id, domain, path FROM {$wpdb->blogs}
         WHERE archived = 0 AND spam = 0 AND deleted = 0 ORDER BY blog_id"
    );
    foreach ($postmeister_rows as $postmeister_row) {
        $postmeister_sites[] = postmeister_site(
            (int) $postmeister_row->blog_id,
            $wpdb->get_blog_prefix($postmeister_row->blog_id),
            'http://' . $postmeister_row->domain . $postmeister_row->path
        );
    }
}
if ($wpdb->last_error) {
    postmeister_answer(array('error' => $wpdb->last_error));
}
postmeister_answer(array('network' => is_multisite(), 'time' => time(), 'sites' => $postmeister_sites));
"""

#: For wp eval-file. Prints the updates that are offered as a list in JSON with the mark in front; nothing when
#: wordpress.org could not be asked: WordPress itself takes that for "no updates".
UPDATES = r"""<?php
// SPDX-License-Identifier: GPL-3.0-or-later
// Written by postmeister.host; changes are overwritten.

require_once ABSPATH . 'wp-admin/includes/plugin.php';
require_once ABSPATH . 'wp-admin/includes/update.php';

$lines = array();
$answered = false;
add_action('http_api_debug', static function ($response, $context, $class, $arguments, $url) use (&$answered) {
    if (strpos($url, '/core/version-check/') && wp_remote_retrieve_response_code($response) === 200) {
        $answered = true;
    }
}, 10, 5);
wp_version_check(array(), true);
if (!$answered) {
    fwrite(STDERR, "wordpress.org does not answer.\n");
    exit(1);
}
$core = get_site_transient('update_core');
foreach (isset($core->updates) ? $core->updates : array() as $offer) {
    if ($offer->response === 'upgrade') {
        $lines[] = "WordPress {$GLOBALS['wp_version']} -> {$offer->current}";
    }
}
foreach (array('plugin', 'theme') as $kind) {
    $kind === 'plugin' ? wp_update_plugins() : wp_update_themes();
    $offers = get_site_transient("update_{$kind}s");
    foreach (isset($offers->response) ? (array) $offers->response : array() as $name => $offer) {
        $offer = (array) $offer;
        $folder = dirname($name) === '.' ? basename($name, '.php') : dirname($name);
        $had = isset($offers->checked[$name]) ? $offers->checked[$name] : '?';
        $lines[] = "$kind $folder $had -> {$offer['new_version']}";
    }
}
$translations = count(wp_get_translation_updates());
if ($translations) {
    $lines[] = "$translations translations";
}
$lines = array_values(array_unique($lines));
echo "\n", getenv('POSTMEISTER_MARK'), json_encode($lines, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
"""
